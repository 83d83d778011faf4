"""MMDetection's inference functions, reading images as training read them."""

import copy
import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch import nn

from ..class_names import show_classes
from ..errors import ExplainedError
from .running import is_rfdetr

_SAME = 3  # levels by which decoders of JPEG differ, on average


def detect_as_trained() -> str | None:
    """Let ``inference_detector`` read every image with the loader of the test data.

    MMDetection writes another loader for arrays into the config of the model, so that
    a path after an array fails, and so does a grey array; an empty list, too.

    Returns:
        The reason; the gap is there with every supported MMDetection.
    """
    from mmdet import apis
    from mmdet.apis import inference

    original = inference.inference_detector

    @functools.wraps(original)
    def inference_detector(model, imgs, test_pipeline=None, *args, **kwargs):
        if is_rfdetr(model):
            if isinstance(imgs, list | tuple) and not imgs:
                return []
            _warn_of_names(model)
            test_pipeline = test_pipeline or _test_pipeline(model.cfg)
        return original(model, imgs, test_pipeline, *args, **kwargs)

    inference.inference_detector = apis.inference_detector = inference_detector
    return 'mmdet.apis reads arrays and paths with loaders that training does not have.'


def infer_as_trained() -> str | None:
    """Let ``DetInferencer`` read, and draw on, every image as training reads it.

    Returns:
        The reason; the gap is there with every supported MMDetection.
    """
    from mmdet.apis import DetInferencer

    init_pipeline, visualize = DetInferencer._init_pipeline, DetInferencer.visualize

    @functools.wraps(init_pipeline)
    def init_pipeline_as_trained(self, cfg):
        pipeline = None
        if is_rfdetr(self.model):
            _warn_of_names(self.model)
            pipeline = _test_pipeline(cfg)
        if pipeline is None:
            return init_pipeline(self, cfg)
        for step in pipeline.transforms:  # there are no ids
            if hasattr(step, 'meta_keys'):
                step.meta_keys = tuple(key for key in step.meta_keys if key != 'img_id')
        return pipeline

    @functools.wraps(visualize)
    def visualize_as_trained(self, inputs, *args, **kwargs):
        loader = _loader(self.pipeline) if is_rfdetr(self.model) else None
        is_saved = kwargs.get('img_out_dir') and not kwargs.get('no_save_vis')
        is_drawn = is_saved or kwargs.get('show') or kwargs.get('return_vis')
        if loader is None or not is_drawn:
            return visualize(self, inputs, *args, **kwargs)
        with _drawable(inputs, loader) as inputs:
            return visualize(self, inputs, *args, **kwargs)

    DetInferencer._init_pipeline = init_pipeline_as_trained
    DetInferencer.visualize = visualize_as_trained
    return 'DetInferencer reads images with loaders that training does not have.'


def _warn_of_names(model: nn.Module) -> None:
    """Warn where the names of the checkpoint are not those of the outputs."""
    names = (getattr(model, 'dataset_meta', None) or {}).get('classes', ())
    outputs = getattr(getattr(model, 'bbox_head', None), 'num_classes', len(names))
    if len(names) != outputs:
        print_log(
            f'Labels are named by the checkpoint, which has {len(names)} classes, '
            f'{show_classes(names)}, and model.bbox_head.num_classes is {outputs}: set '
            f'it to {len(names)} for detections of all of these and of nothing else.',
            logger='current',
            level=logging.WARNING,
        )


def draw_as_trained() -> str | None:
    """Let ``DetVisualizationHook`` draw on the images that the data set reads.

    It ends the run at the first file that mmcv cannot read, which may be one of floats,
    or a broken one that evaluation takes as black.

    Returns:
        The reason; the gap is there with every supported MMDetection.
    """
    from mmdet.engine.hooks import DetVisualizationHook

    def drawing(original: Callable, mode: str) -> Callable:
        @functools.wraps(original)
        def after_iter(self, runner, batch_idx, data_batch, outputs):
            dataset = getattr(runner, f'{mode}_dataloader').dataset
            loader = _loader(getattr(dataset, 'pipeline', None))
            if not self.draw or loader is None or not is_rfdetr(runner.model):
                return original(self, runner, batch_idx, data_batch, outputs)
            drawn = outputs if mode == 'test' else outputs[:1]
            paths = [sample.img_path for sample in drawn]
            shapes = {sample.img_path: sample.ori_shape for sample in drawn}

            def load(path):
                try:
                    return loader(path)
                except ExplainedError:
                    return dict(img=np.zeros((*shapes[path], 3), np.uint8))

            with _drawable(paths, load, self.backend_args) as drawable:
                for sample, path in zip(drawn, drawable, strict=True):
                    sample.set_metainfo(dict(img_path=path))
                try:
                    original(self, runner, batch_idx, data_batch, outputs)
                finally:
                    for sample, path in zip(drawn, paths, strict=True):
                        sample.set_metainfo(dict(img_path=path))

        return after_iter

    for mode in ('val', 'test'):
        name = f'after_{mode}_iter'
        original = getattr(DetVisualizationHook, name)
        setattr(DetVisualizationHook, name, drawing(original, mode))
    return 'DetVisualizationHook reads images with another loader than the data set.'


class _PathsAndArrays:
    """The loader of a pipeline for paths, another one for arrays."""

    def __init__(self, from_path: Callable, from_array: Callable) -> None:
        self.from_path = from_path
        self.from_array = from_array

    def __call__(self, image: Any) -> dict:
        if not isinstance(image, dict):
            image = {'img' if hasattr(image, 'dtype') else 'img_path': image}
        return (self.from_array if 'img' in image else self.from_path)(image)


def _test_pipeline(cfg: Any) -> Any:
    """The pipeline of the test data, for paths and arrays; None if it loads nothing."""
    from mmcv.transforms import LoadImageFromFile
    from mmdet.registry import DATASETS, TRANSFORMS

    dataset = copy.deepcopy(cfg.test_dataloader.dataset)
    # Reads no file, and knows what the data set makes of its pipeline.
    pipeline = getattr(DATASETS.build(dict(dataset, lazy_init=True)), 'pipeline', None)
    for index, step in enumerate(getattr(pipeline, 'transforms', ())):
        if isinstance(step, TRANSFORMS.get('RFDETRLoadImage')):
            return pipeline
        loader = getattr(step, 'loader', step)
        if isinstance(loader, LoadImageFromFile):
            is_colour = loader.color_type == 'color'
            kind = 'RFDETRLoadImage' if is_colour else 'LoadImageFromNDArray'
            from_array = TRANSFORMS.build(dict(type=kind, to_float32=loader.to_float32))
            pipeline.transforms[index] = _PathsAndArrays(step, from_array)
            return pipeline
    return None


def _loader(pipeline: Any) -> Callable | None:
    """The step of a pipeline that loads paths and arrays; None if there is none."""
    from mmdet.registry import TRANSFORMS

    kinds = (TRANSFORMS.get('RFDETRLoadImage'), _PathsAndArrays)
    steps = getattr(pipeline, 'transforms', ())
    return next((step for step in steps if isinstance(step, kinds)), None)


@contextmanager
def _drawable(
    inputs: Sequence[Any], loader: Callable, backend_args: dict | None = None
) -> Iterator[list[Any]]:
    """Images as MMDetection can draw on them, the others read by the loader."""
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        drawable = []
        for index, image in enumerate(inputs):
            pixels = loader(image)['img'].clip(0, 255).astype(np.uint8)
            is_array = isinstance(image, np.ndarray)
            image = image if is_array else str(image)
            if pixels.shape[2:] != (3,):
                pass  # as MMDetection can, or not
            elif is_array:
                image = pixels
            elif not _is_known(image, pixels, backend_args):
                image = Path(folder, str(index), f'{Path(image).stem}.png')
                image.parent.mkdir()
                image.write_bytes(cv2.imencode('.png', pixels)[1].tobytes())
                image = str(image)
            drawable.append(image)
        yield drawable


def _is_known(path: str, pixels: np.ndarray, backend_args: dict | None) -> bool:
    """Whether MMDetection, which draws on what mmcv reads, reads these pixels."""
    import mmcv
    from mmengine import fileio

    try:
        known = mmcv.imfrombytes(fileio.get(path, backend_args))
    except Exception:  # of a file that is none, mmcv raises what OpenCV raises
        return False
    if known is None or known.shape != pixels.shape:
        return False
    return np.abs(known.astype(np.float32) - pixels).mean() <= _SAME
