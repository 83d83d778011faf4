"""COCO's metric for annotations as they really are."""

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from ..data.masks import drawable_parts, mask_problem


@METRICS.register_module()
class RFDETRCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric``, which looks at the masks before the first step.

    Parts of a mask that are no polygons are left out, as in training. Arguments are
    those of ``CocoMetric``.

    Raises:
        ValueError: if masks are to be evaluated and an object has none that can be
            drawn. pycocotools would find out after the first epoch.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if 'segm' in self.metrics and self._coco_api is not None:
            self._check_masks()

    def _check_masks(self) -> None:
        found = []
        for annotation in self._coco_api.anns.values():
            image = self._coco_api.imgs[annotation['image_id']]
            problem = mask_problem(
                annotation.get('segmentation'), image['height'], image['width']
            )
            if problem is not None:
                found.append((annotation, problem))
            elif isinstance(annotation['segmentation'], list):
                annotation['segmentation'] = drawable_parts(annotation['segmentation'])
        if found:
            annotation, problem = found[0]
            raise ValueError(
                f"metric 'segm' needs a mask for every object, and {len(found)} have "
                f'none that can be drawn; the first is annotation {annotation["id"]} '
                f'of image {annotation["image_id"]}, which has {problem}: remove these '
                "objects, or evaluate with metric='bbox' alone"
            )
