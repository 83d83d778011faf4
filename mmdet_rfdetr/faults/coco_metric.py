"""The metric on annotations and images as they really are."""

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import METRICS
from mmengine.logging import print_log

from ..class_names import show_classes
from ..errors import ExplainedError, SettingError
from ..evaluation.coco_metric import RFDETRCocoMetric
from .annotations import clean_annotations, read_annotations
from .findings import Findings
from .same_images import distinct, find_images, number_images


@METRICS.register_module(name='RFDETRCocoMetric', force=True)
class CheckedCocoMetric(RFDETRCocoMetric):
    """Evaluate on annotations as they really are, and on the images that they describe.

    What ``RFDETRCocoDataset`` cannot use is left out here as well: entries that are
    broken or point nowhere, and images that were not evaluated because their file is
    no image. Missing keys are completed. Boxes without area stay, as in the official
    evaluation: nobody can find them. Parts of a mask that are no polygons are left
    out. Before the first step it warns of classes without any object, and of images
    with more objects than count.

    Images have to be those that the file describes, see
    :func:`~mmdet_rfdetr.faults.same_images.find_images`. One that was evaluated several
    times counts once; without a file, images of several data sets may have the same id.
    """

    def _read_annotations(self) -> dict:
        document = read_annotations(
            self._ann_file, self.backend_args, needs_objects=not self.format_only
        )
        return clean_annotations(document, Findings(self._ann_file))

    @RFDETRCocoMetric.dataset_meta.setter
    def dataset_meta(self, meta: dict | Sequence[dict]) -> None:
        """Take the classes, and look at their objects before anything is evaluated."""
        RFDETRCocoMetric.dataset_meta.fset(self, meta)
        is_own = self._coco_api is not None and isinstance(meta, Mapping)
        if is_own and not self.format_only:
            remark_on_objects(
                self._coco_api, self._classes(), self.limit, self._ann_file
            )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collect the predictions of a batch, and which images these are of.

        Raises:
            SettingError: without a file, the samples need their ground truth.
        """
        if self._coco_api is None and not all('instances' in s for s in data_samples):
            raise SettingError(
                'RFDETRCocoMetric without ann_file takes the ground truth of the '
                "samples: add 'instances' to meta_keys of PackDetInputs in the "
                'pipeline, or set ann_file.'
            )
        first = len(self.results)
        super().process(data_batch, data_samples)
        for (target, _), sample in zip(self.results[first:], data_samples, strict=True):
            target['img_path'] = sample.get('img_path')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate each image once, by its id in the ground truth."""
        require_labels([found for _, found in results], len(self._classes()))
        results = distinct(results)
        ids = self._find_images([target for target, _ in results])
        return super().compute_metrics(
            [
                (dict(target, img_id=key), dict(prediction, img_id=key))
                for key, (target, prediction) in zip(ids, results, strict=True)
            ]
        )

    def _find_images(self, targets: Sequence[dict]) -> list[Hashable]:
        if self._coco_api is not None:
            index = self._coco_api
            return find_images(targets, index.imgs, index.imgToAnns, self._ann_file)
        ids = number_images(targets)
        if self.outfile_prefix and ids != [target['img_id'] for target in targets]:
            raise SettingError(
                'Images of several data sets have the same ids, which result files '
                'cannot tell apart: evaluate each with a metric of its own '
                '(MultiDatasetsEvaluator), or leave out outfile_prefix.'
            )
        return ids


def require_labels(results: Sequence[dict], num_classes: int) -> None:
    """Stop at a detection of a class that the data does not have.

    Args:
        results: dicts with ``labels``.
        num_classes: K, of the data.

    Raises:
        ExplainedError: if a label is not one of 0 to K - 1.
    """
    for result in results:
        labels = result['labels']
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if wrong.size:
            raise ExplainedError(
                f'The model found class {int(wrong[0])}, and the data has only '
                f'{num_classes} classes, counted from 0: make '
                'model.bbox_head.num_classes and metainfo.classes of the data set '
                'those of the checkpoint.'
            )


def remark_on_objects(
    coco: COCO, classes: Sequence[str], limit: int, source: str
) -> None:
    """Warn of objects that make a metric say less than it seems to.

    Args:
        coco: the index of a whole file.
        classes: names of the categories that are evaluated.
        limit: detections of a class in an image that count.
        source: the file.
    """
    objects = Counter(
        (annotation['image_id'], annotation['category_id'])
        for annotation in coco.anns.values()
        if not annotation['iscrowd'] and min(annotation['bbox'][2:]) > 0
    )
    counts = [
        count
        for (_, category), count in objects.items()
        if str(coco.cats[category]['name']) in classes
    ]
    crowded = [count for count in counts if count > limit]
    if not counts:
        message = (
            f'{source} has no object of the classes {show_classes(classes)} to be '
            'found: no metric can be more than 0, and no checkpoint will be the best '
            'one. Set ann_file and metainfo.classes of the evaluation.'
        )
    elif crowded:
        message = (
            f'{source} has up to {max(crowded)} objects of a class in an image, and '
            f'mAP counts {limit} detections of them, so that it cannot reach 1: set '
            f'proposal_nums=(1, 10, {max(crowded)}) in val_evaluator and '
            'test_evaluator to count them all.'
        )
    else:
        return
    print_log(message, logger='current', level=logging.WARNING)
