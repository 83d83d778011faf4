"""Masks of annotations as they really are."""

import numpy as np
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log

from ..errors import SettingError
from .mask_rules import is_near, is_polygon, mask_problem


@TRANSFORMS.register_module()
class RFDETRLoadAnnotations(LoadAnnotations):
    """Load boxes, labels and masks, and leave out objects without a usable mask.

    mmdet leaves out objects whose polygons are broken; here the same goes for
    objects that have no mask at all, and for run lengths of another image size. The
    first one that a process meets is logged. Arguments, and keys read and written,
    are those of mmdet's ``LoadAnnotations``.
    """

    _warned = False

    def _load_masks(self, results: dict) -> None:
        """Load the masks as mmdet does.

        Raises:
            SettingError: if the image was not loaded before.
        """
        if 'ori_shape' not in results:
            raise SettingError(
                'masks are loaded after their image: begin the pipeline with '
                'RFDETRLoadImage (RFDETRLoadJittered is for training without masks)'
            )
        super()._load_masks(results)

    def _process_masks(self, results: dict) -> list:
        """Masks of all objects; those left out get ``ignore_flag`` and a dot."""
        height, width = results['ori_shape']
        for instance in results.get('instances', []):
            if isinstance(instance.get('mask'), list):
                instance['mask'] = [
                    polygon
                    for polygon in instance['mask']
                    if is_polygon(polygon) and is_near(polygon, height, width)
                ]
            problem = instance.get('mask_problem') or mask_problem(
                instance.get('mask'), height, width
            )
            if problem is not None:
                self._warn(results.get('img_path'), instance, problem)
                instance['mask'] = [np.zeros(6)]
                instance['ignore_flag'] = 1
        return super()._process_masks(results)

    def _warn(self, image: str | None, instance: dict, problem: str) -> None:
        # Nothing is learned from crowds anyway.
        if not self._warned and not instance['ignore_flag']:
            self._warned = True
            print_log(
                f'{image}: the object in the box {instance["bbox"]} has {problem}; it '
                'is left out of training, and so are all others without a usable mask',
                logger='current',
                level=30,
            )
