"""COCO's metric for annotations as they really are."""

import contextlib
import io

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from ..data.annotations import clean_annotations, read_annotations
from ..data.findings import Findings
from ..data.masks import drawable_parts, mask_problem


@METRICS.register_module()
class RFDETRCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric``, on annotations as they really are.

    What ``RFDETRCocoDataset`` cannot use is left out here as well: entries that are
    broken or point nowhere, and images that were not evaluated because their file is
    no image. Missing keys are completed. Boxes without area stay, as in the official
    evaluation: nobody can find them. Parts of a mask that are no polygons are left
    out; masks are looked at before the first step.

    Args:
        ann_file: COCO annotation file.
        backend_args: where it comes from, see ``mmengine.fileio``.
        **kwargs: other arguments of ``CocoMetric`` but ``sort_categories``: labels
            follow the order of the file.

    Raises:
        ValueError: if masks are to be evaluated and an object has none that can be
            drawn. pycocotools would find out after the first epoch.
    """

    def __init__(
        self, ann_file: str | None = None, *, backend_args: dict | None = None, **kwargs
    ) -> None:
        if 'sort_categories' in kwargs:
            raise TypeError(
                'RFDETRCocoMetric takes labels in the order of the file: leave out '
                'sort_categories.'
            )
        super().__init__(backend_args=backend_args, **kwargs)
        if ann_file is None:
            return
        document = read_annotations(ann_file, backend_args)
        self._coco_api = build_index(
            clean_annotations(document, Findings(ann_file)), document.get('info')
        )
        if 'segm' in self.metrics:
            self._check_masks()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the images that were looked at; the result is mmdet's."""
        self.img_ids = sorted({prediction['img_id'] for _, prediction in results})
        return super().compute_metrics(results)

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


def build_index(document: dict, info: dict | None) -> COCO:
    """Make pycocotools' index of a document, with ids that it can count with.

    Args:
        document: see :func:`~mmdet_rfdetr.data.annotations.clean_annotations`.
        info: ``info`` of the file; pycocotools wants one.
    """
    coco = COCO()
    coco.dataset = dict(
        document,
        info=info or {},
        # pycocotools takes the id 0 for "no object" and puts ids into float arrays.
        annotations=[
            dict(annotation, id=number)
            for number, annotation in enumerate(document['annotations'], start=1)
        ],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco
