"""COCO's metric for annotations as they really are, computed fast."""

import itertools
import tempfile
from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from ..class_names import join_class_lists, read_class_list
from ..data.annotations import match_categories, read_annotations
from ..errors import BadDataError, SettingError
from ..faults.annotations import clean_annotations
from ..faults.findings import Findings
from ..faults.same_images import distinct, find_images, number_images
from ..ops.masks import mask_problem
from .averages import (
    PRECISIONS,
    class_precisions,
    class_table,
    recall_names,
    summarize,
)
from .engines import choose_engine
from .ground_truth import build_index, remark_on_objects, select
from .predictions import Detections, require_labels, sort_ids

# mmdet's: mAP counts the first number, the other precisions count the last.
_DEFAULT_NUMS = (100, 300, 1000)
# All that is more than rounding: pycocotools gives 1 - 2e-16 to perfect detections.
_DIGITS = 12


@METRICS.register_module()
class RFDETRCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric``, faster, and on annotations as they really are.

    Names and printed output are mmdet's, and so are the values, but not rounded to
    three digits: they choose checkpoints. Detections go to the engine in memory; files
    are written only where ``outfile_prefix`` asks for them.

    What ``RFDETRCocoDataset`` cannot use is left out here as well: entries that are
    broken or point nowhere, and images that were not evaluated because their file is
    no image. Missing keys are completed. Boxes without area stay, as in the official
    evaluation: nobody can find them. Parts of a mask that are no polygons are left
    out; masks are looked at before the first step. An object marked ``"ignore"`` is
    a crowd region. Before the first step it warns of classes without any object, and
    of images with more objects than count.

    Labels follow the classes of the data set by name, whatever the order of the file;
    a class that the file lacks is one without objects. Images have to be those that
    the file describes, see :func:`~mmdet_rfdetr.faults.same_images.find_images`.

    Where a detection is not finite, so is no metric: all are NaN, and an error is
    logged.

    Args:
        ann_file: COCO annotation file; without it, the ground truth of the samples.
        backend_args: where it comes from, see ``mmengine.fileio``.
        engine: what computes the averages, a key of :data:`.engines.ENGINES`, or
            ``'auto'``: the fastest that is installed. Their numbers are equal.
        proposal_nums: how many detections of a class in an image count. Recalls are
            computed for each, precisions for the largest. None counts as mmdet does
            without it: 100 for ``mAP``, as COCO, 1000 for the other precisions, and
            100, 300 and 1000 for recalls.
        **kwargs: other arguments of ``CocoMetric``, but not ``sort_categories`` (labels
            follow the classes of the data set, by name), ``use_mp_eval`` (engines are
            faster) and the metric ``'proposal_fast'`` (``'proposal'`` has the recall).

    Raises:
        SettingError: if a setting is one of these three, ``metric_items`` names what
            there is not, ``proposal_nums`` are no numbers, or there is no such engine.
        BadDataError: if masks are to be evaluated and an object has none that can be
            drawn. pycocotools would find out after the first epoch.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        backend_args: dict | None = None,
        engine: str = 'auto',
        proposal_nums: Sequence[int] | None = None,
        **kwargs,
    ) -> None:
        for name in ('sort_categories', 'use_mp_eval'):
            if name in kwargs:
                raise SettingError(
                    f'RFDETRCocoMetric has no {name}: leave it out, or evaluate with '
                    'CocoMetric'
                )
        super().__init__(backend_args=backend_args, **kwargs)
        if 'proposal_fast' in self.metrics:
            raise SettingError(
                "RFDETRCocoMetric has no metric 'proposal_fast': set 'proposal'"
            )
        self.iou_thrs = np.atleast_1d(self.iou_thrs)  # may be given as a list
        is_default = proposal_nums is None
        self.proposal_nums = _ascending(_DEFAULT_NUMS if is_default else proposal_nums)
        self._limit = _DEFAULT_NUMS[0] if is_default else self.proposal_nums[-1]
        known = (*PRECISIONS, *recall_names(self.proposal_nums))
        for item in self.metric_items or ():
            if item not in known:
                raise SettingError(f'metric_items: {item!r} is none of {known}')
        self._engine = choose_engine(engine)
        self._ann_file = ann_file
        if ann_file is None:
            return
        document = read_annotations(
            ann_file, backend_args, needs_objects=not self.format_only
        )
        self._coco_api = build_index(clean_annotations(document, Findings(ann_file)))
        if 'segm' in self.metrics:
            self._require_masks(self._coco_api, {})

    @CocoMetric.dataset_meta.setter
    def dataset_meta(self, meta: dict | Sequence[dict]) -> None:
        """Take the classes, and look at their objects before anything is evaluated.

        Args:
            meta: of a data set, or of each of several that are joined.

        Raises:
            BadDataError: if the file has none of the classes, or spells one otherwise.
        """
        self._dataset_meta = meta
        # mmdet's MultiDatasetsEvaluator hands over all, and later each its own.
        if self._coco_api is None or not isinstance(meta, Mapping):
            return
        self._match_classes(self._coco_api)
        if not self.format_only:
            remark_on_objects(
                self._coco_api, self._classes(), self._limit, self._ann_file
            )

    def _classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        meta = self.dataset_meta
        metas = [meta] if isinstance(meta, Mapping) else meta
        return join_class_lists([read_class_list(meta['classes']) for meta in metas])

    def _match_classes(self, index: COCO) -> list[Hashable | None]:
        """Category id of each label; None for a class that the file lacks."""
        classes = self._classes()
        labels = match_categories(
            index.dataset['categories'], classes, self._ann_file or 'the data'
        )
        keys = {label: key for key, label in labels.items()}
        return [keys.get(label) for label in range(len(classes))]

    def metric_names(self) -> list[str]:
        """The names of what ``evaluate`` returns, before there is a result."""
        prefix = f'{self.prefix}/' if self.prefix else ''
        return [prefix + name for name in dict.fromkeys(self._names())]

    def _names(self) -> Iterator[str]:
        for metric in () if self.format_only else self.metrics:
            yield from (self._name(metric, item) for item in self._items(metric))
            if metric != 'proposal' and self.classwise:
                yield from (f'{name}_precision' for name in self._classes())

    def _items(self, metric: str) -> Sequence[str]:
        """Names of the averages of a metric."""
        usual = PRECISIONS
        if metric == 'proposal':
            usual = recall_names(self.proposal_nums)
        return self.metric_items or usual

    @staticmethod
    def _name(metric: str, item: str) -> str:
        return item if metric == 'proposal' else f'{metric}_{item}'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collect the predictions of a batch, and which images these are of."""
        first = len(self.results)
        if self._coco_api is None and not all('instances' in s for s in data_samples):
            raise SettingError(
                'RFDETRCocoMetric without ann_file takes the ground truth of the '
                "samples: add 'instances' to meta_keys of PackDetInputs in the "
                'pipeline, or set ann_file.'
            )
        super().process(data_batch, data_samples)
        for (target, _), sample in zip(self.results[first:], data_samples, strict=True):
            target['img_path'] = sample.get('img_path')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the images that were looked at.

        Args:
            results: what ``process`` collected: (ground truth, predictions) of images.

        Returns:
            mmdet's names and values; nothing with ``format_only``.
        """
        logger: MMLogger = MMLogger.get_current_instance()
        targets, predictions = zip(*distinct(results), strict=True)
        ids = self._find_images(targets)
        targets, predictions = (
            [dict(entry, img_id=key) for key, entry in zip(ids, entries, strict=True)]
            for entries in (targets, predictions)
        )
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or str(Path(folder, 'results'))
            index = self._coco_api
            if index is None:
                self._dataset_meta = dict(classes=self._classes())
                logger.info('Converting ground truth to coco format...')
                index = COCO(self.gt_to_coco_json(targets, prefix))
            self.cat_ids = self._match_classes(index)
            if self.outfile_prefix is not None:
                self.results2json(predictions, prefix)
        if self.format_only:
            logger.info(f'results are saved in {Path(prefix).parent}')
            return {}
        sizes = {
            image['img_id']: (image['height'], image['width']) for image in targets
        }
        return self._evaluate(index, predictions, sizes, logger)

    def _find_images(self, targets: Sequence[dict]) -> list[Hashable]:
        """The id in the ground truth of each image that was evaluated.

        Raises:
            BadDataError: if it is not those images that the annotations describe.
            SettingError: if files are to be written in which images of several data
                sets have the same id.
        """
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

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Write detections; those of a class that the file lacks have no id there."""
        require_labels(results, len(self.cat_ids))
        if None in self.cat_ids:
            known = {label for label, key in enumerate(self.cat_ids) if key is not None}
            results = [_of_labels(result, known) for result in results]
        return super().results2json(results, outfile_prefix)

    def _evaluate(
        self,
        index: COCO,
        predictions: Sequence[dict],
        sizes: dict,
        logger: MMLogger,
    ) -> dict[str, float]:
        """Compute every metric that was asked for; ``sizes`` are those of the files."""
        category_ids = sort_ids(key for key in self.cat_ids if key is not None)
        absent = itertools.count(len(category_ids))
        ranks = [
            next(absent) if key is None else category_ids.index(key)
            for key in self.cat_ids
        ]
        self.img_ids = sort_ids(prediction['img_id'] for prediction in predictions)
        detections = Detections.from_results(
            predictions,
            {key: rank for rank, key in enumerate(self.img_ids)},
            np.array(ranks),
        )
        if not self._are_finite(detections, logger):
            return dict.fromkeys(self._names(), float('nan'))
        ground_truth = select(index, self.img_ids, category_ids, len(ranks), sizes)
        if 'segm' in self.metrics:
            if detections.masks is None:
                raise SettingError(
                    "metric 'segm' needs masks, and the model gives none: evaluate "
                    "with metric='bbox' alone, or train one of the rfdetr-seg configs"
                )
            self._require_masks(index, sizes)
        found: dict[str, float] = {}
        for metric in self.metrics:
            logger.info(f'Evaluating {metric}...')
            if not len(detections):
                logger.error('The testing results of the whole dataset is empty.')
                break
            iou_type = 'segm' if metric == 'segm' else 'bbox'
            evaluator = self._engine(ground_truth, detections, iou_type)
            # Without categories, pycocotools takes their objects in this order.
            evaluator.params.catIds = ranks
            evaluator.params.useCats = int(metric != 'proposal')
            evaluator.params.maxDets = list(self.proposal_nums)
            evaluator.params.iouThrs = self.iou_thrs
            evaluator.evaluate()
            evaluator.accumulate()
            averages = summarize(evaluator, self._limit)
            # First of all, for save_best='auto'.
            found.update(
                {
                    self._name(metric, item): averages[item]
                    for item in self._items(metric)
                }
            )
            if metric != 'proposal':
                if self.classwise:
                    found.update(self._by_class(evaluator, ranks, logger))
                copied = ' '.join(f'{averages[name]:.3f}' for name in PRECISIONS)
                logger.info(f'{metric}_mAP_copypaste: {copied}')
        return {name: round(value, _DIGITS) for name, value in found.items()}

    def _are_finite(self, detections: Detections, logger: MMLogger) -> bool:
        """Whether there is anything to compute with; log what is not finite."""
        finite = np.isfinite(detections.boxes).all(1) & np.isfinite(detections.scores)
        broken = np.unique(detections.images[~finite])
        if len(broken):
            examples = ', '.join(repr(self.img_ids[rank]) for rank in broken[:3])
            logger.error(
                f'The model gave detections that are not finite (NaN or infinity) for '
                f'{len(broken)} of {len(self.img_ids)} images, for example {examples}: '
                'every metric is NaN, and this is no best checkpoint. Its weights are '
                'not finite, or a number is too large for model.precision.dtype: '
                'evaluate an earlier checkpoint, or with model.precision=None.'
            )
        return not len(broken)

    def _by_class(
        self, evaluator: COCOeval, ranks: list[int], logger: MMLogger
    ) -> dict[str, float]:
        """Log the precision of each class, in the order of the labels."""
        precisions = class_precisions(evaluator.eval['precision'], self.iou_thrs)[ranks]
        names = self._classes()
        logger.info('\n' + class_table(names, precisions))
        means = precisions[:, 0].tolist()
        return {
            f'{name}_precision': mean for name, mean in zip(names, means, strict=True)
        }

    @staticmethod
    def _require_masks(index: COCO, sizes: dict[Hashable, tuple[int, int]]) -> None:
        """Stop if an object has no mask that can be drawn.

        pycocotools reads beyond the end of run lengths that do not fit their image.

        Args:
            index: the ground truth.
            sizes: (height, width) of images, where they are known better than by what
                the annotations state.
        """
        found = []
        for annotation in index.anns.values():
            image = index.imgs[annotation['image_id']]
            stated = image.get('height'), image.get('width')
            size = sizes.get(image['id'], stated)
            problem = mask_problem(annotation.get('segmentation'), *size)
            if problem is not None:
                found.append((annotation, problem))
        if found:
            annotation, problem = found[0]
            raise BadDataError(
                f"metric 'segm' needs a mask for every object, and {len(found)} have "
                f'none that can be drawn; the first is annotation {annotation["id"]} '
                f'of image {annotation["image_id"]}, which has {problem}: remove these '
                "objects, or evaluate with metric='bbox' alone"
            )


def _of_labels(result: dict, labels: Container[int]) -> dict:
    """The detections of some labels in an image."""
    kept = [i for i, label in enumerate(result['labels'].tolist()) if label in labels]
    return {
        name: value
        if name == 'img_id'
        else [value[index] for index in kept]
        if isinstance(value, list)
        else value[kept]
        for name, value in result.items()
    }


def _ascending(numbers: Sequence[int]) -> list[int]:
    """Numbers of detections in ascending order, each once.

    Raises:
        SettingError: if they are none.
    """
    values = np.array(numbers, ndmin=1)
    if values.dtype.kind not in 'iu' or values.min() < 1:
        raise SettingError(
            f'proposal_nums={numbers!r}: give whole numbers above 0, for example '
            '(1, 10, 500)'
        )
    return np.unique(values).tolist()
