"""Test-time augmentation by the mirror image, without NMS."""

from dataclasses import replace

import numpy as np
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.model import BaseTTAModel

from ..errors import SettingError
from .checkpoint import found_of, instances_of


@MODELS.register_module()
class RFDETRMirrorTTA(BaseTTAModel):
    """Join what was found in several views of each picture, mirrored or not.

    The views are tiles that show all of the picture, so the same rule says what is one
    object: at most one detection of each view, of the same class, where the boxes
    agree. An object has the mean of their boxes, and its score falls with the share of
    the views that have not found it.

    Args:
        module: the detector, or its config.
        missed: how much of the score is lost where all other views miss the object.
        **kwargs: ``data_preprocessor`` of mmengine's class.
    """

    def __init__(self, module, missed: float = 0.5, **kwargs) -> None:
        super().__init__(module, **kwargs)
        self.missed = missed

    def merge_preds(self, data_samples_list: list[SampleList]) -> SampleList:
        """Join the views of each picture; argument and result are mmengine's."""
        from rfdetr_runtime.tiles import join_views

        merged = []
        for views in data_samples_list:
            size = height, width = views[0].ori_shape[:2]
            found = []
            for view in views:
                each = found_of(view.pred_instances)
                if view.get('flip'):
                    each = _mirrored(each, size, view.flip_direction)
                found.append(each)
            regions = np.tile([0, 0, width, height], (len(views), 1))
            joined = join_views(found, regions, size, missed=self.missed)
            sample = views[0]
            device = sample.pred_instances.bboxes.device
            sample.pred_instances = instances_of(joined).to(device)
            merged.append(sample)
        return merged


def _mirrored(found, size: tuple[int, int], direction: str):
    """Detections of a mirror image as those of the picture.

    Raises:
        SettingError: if they have points, whose sides would have to be swapped.
    """
    if found.keypoints is not None:
        raise SettingError(
            'a mirror image has the points of the left side on the right, and --tta '
            'does not turn them back: test a pose model without it'
        )
    height, width = size
    boxes, masks = found.boxes.copy(), found.masks
    if direction in ('horizontal', 'diagonal'):
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        masks = None if masks is None else masks[:, :, ::-1]
    if direction in ('vertical', 'diagonal'):
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        masks = None if masks is None else masks[:, ::-1]
    return replace(found, boxes=boxes, masks=masks)
