"""MMDetection draws on the images that training reads, and not only on mmcv's."""

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmdet.apis import DetInferencer
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import TRANSFORMS
from mmengine import fileio

from ..compat.running import is_rfdetr
from ..errors import ExplainedError

_SAME = 3  # levels by which decoders of JPEG differ, on average


def draw_on_what_was_read() -> str:
    """Let ``DetInferencer`` draw on every image as training reads it.

    Returns:
        The reason; the gap is there with every supported MMDetection.
    """
    visualize = DetInferencer.visualize

    @functools.wraps(visualize)
    def visualize_as_trained(self, inputs, *args, **kwargs):
        loader = _loader(self.pipeline) if is_rfdetr(self.model) else None
        is_saved = kwargs.get('img_out_dir') and not kwargs.get('no_save_vis')
        is_drawn = is_saved or kwargs.get('show') or kwargs.get('return_vis')
        if loader is None or not is_drawn:
            return visualize(self, inputs, *args, **kwargs)
        with _drawable(inputs, loader) as inputs:
            return visualize(self, inputs, *args, **kwargs)

    DetInferencer.visualize = visualize_as_trained
    return 'DetInferencer draws on images that it reads with another loader.'


def draw_as_trained() -> str | None:
    """Let ``DetVisualizationHook`` draw on the images that the data set reads.

    It ends the run at the first file that mmcv cannot read, which may be one of floats,
    or a broken one that evaluation takes as black.

    Returns:
        The reason; the gap is there with every supported MMDetection.
    """

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


def _loader(pipeline: Any) -> Callable | None:
    """The step of a pipeline that loads paths and arrays; None if there is none."""
    kind = TRANSFORMS.get('RFDETRLoadImage')
    steps = getattr(pipeline, 'transforms', ())
    return next((step for step in steps if isinstance(step, kind)), None)


@contextmanager
def _drawable(
    inputs: Sequence[Any], loader: Callable, backend_args: dict | None = None
) -> Iterator[list[Any]]:
    """Images as MMDetection can draw on them, the others read by the loader."""
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
    try:
        known = mmcv.imfrombytes(fileio.get(path, backend_args))
    except Exception:  # of a file that is none, mmcv raises what OpenCV raises
        return False
    if known is None or known.shape != pixels.shape:
        return False
    return np.abs(known.astype(np.float32) - pixels).mean() <= _SAME
