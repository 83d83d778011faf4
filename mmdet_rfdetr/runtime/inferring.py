"""MMDetection's inference functions, reading images as training read them."""

import copy
import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch import nn

from ..class_names import show_classes
from ..compat.running import is_rfdetr


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
            test_pipeline = test_pipeline or pipeline_of_test_data(model.cfg)
            if test_pipeline is None:
                return _with_loader_of_mmdet(original, model, imgs, *args, **kwargs)
        return original(model, imgs, test_pipeline, *args, **kwargs)

    inference.inference_detector = apis.inference_detector = inference_detector
    return 'mmdet.apis reads arrays and paths with loaders that training does not have.'


def infer_as_trained() -> str | None:
    """Let ``DetInferencer`` read every image as training reads it.

    Returns:
        The reason; the gap is there with every supported MMDetection.
    """
    from mmdet.apis import DetInferencer

    init_pipeline = DetInferencer._init_pipeline

    @functools.wraps(init_pipeline)
    def init_pipeline_as_trained(self, cfg):
        pipeline = None
        if is_rfdetr(self.model):
            _warn_of_names(self.model)
            pipeline = pipeline_of_test_data(cfg)
        if pipeline is None:
            pipeline = init_pipeline(self, cfg)
            pipeline.transforms.insert(0, _as_colours)
            return pipeline
        for step in pipeline.transforms:  # there are no ids
            if hasattr(step, 'meta_keys'):
                step.meta_keys = tuple(key for key in step.meta_keys if key != 'img_id')
        return pipeline

    DetInferencer._init_pipeline = init_pipeline_as_trained
    return 'DetInferencer reads images with loaders that training does not have.'


def _with_loader_of_mmdet(
    infer: Callable, model: nn.Module, imgs: Any, *args, **kwargs
) -> Any:
    """Detect where the pipeline names a loader that takes files alone.

    MMDetection writes its loader for arrays, which are colours, into ``model.cfg``.
    """
    is_batch = isinstance(imgs, list | tuple)
    images = [_as_colours(image) for image in (imgs if is_batch else [imgs])]
    cfg, model.cfg = model.cfg, copy.deepcopy(model.cfg)
    try:
        return infer(model, images if is_batch else images[0], None, *args, **kwargs)
    finally:
        model.cfg = cfg


def _as_colours(image: Any) -> Any:
    """What mmcv reads from a grey file, if the image is a grey array."""
    is_grey = isinstance(image, np.ndarray) and image.ndim == 2
    return np.stack([image] * 3, axis=-1) if is_grey else image


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


def pipeline_of_test_data(cfg: Any) -> Any:
    """The pipeline of the test data, if it takes paths and arrays; None otherwise."""
    from mmdet.registry import DATASETS, TRANSFORMS

    dataset = copy.deepcopy(cfg.test_dataloader.dataset)
    # Reads no file, and knows what the data set makes of its pipeline.
    pipeline = getattr(DATASETS.build(dict(dataset, lazy_init=True)), 'pipeline', None)
    kind = TRANSFORMS.get('RFDETRLoadImage')
    steps = getattr(pipeline, 'transforms', ())
    return pipeline if any(isinstance(step, kind) for step in steps) else None
