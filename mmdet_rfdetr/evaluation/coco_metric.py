"""COCO's metric, computed fast, with classes by their names."""

import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from ..class_names import join_class_lists, read_class_list
from ..data.annotations import match_categories, read_annotations
from ..errors import SettingError, check_counts
from .averages import PRECISIONS, class_precisions, count, recall_names, summarize
from .engines import choose_engine
from .ground_truth import build_index, select
from .predictions import KINDS, box_columns

# mmdet's: mAP counts the first number, the other precisions count the last.
_DEFAULT_NUMS = (100, 300, 1000)
# All that is more than rounding: pycocotools gives 1 - 2e-16 to perfect detections.
_DIGITS = 12


@METRICS.register_module()
class RFDETRCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric``, faster, and with classes by their names.

    Names and printed output are mmdet's, and so are the values, but not rounded to
    three digits: they choose checkpoints. Detections go to the engine in memory; files
    are written only where ``outfile_prefix`` asks for them.

    Labels follow the classes of the data set by name, whatever the order of the file;
    a class that the file lacks is one without objects. An object without ``area`` has
    that of its box, and one marked ``"ignore"`` is a crowd region. Images of the file
    that were not evaluated are left out.

    Where a detection is not finite, so is no metric: all are NaN, and an error is
    logged.

    Args:
        ann_file: COCO annotation file; without it, the ground truth of the samples.
        backend_args: where it comes from, see ``mmengine.fileio``.
        engine: ``'auto'``, or one of :data:`~mmdet_rfdetr.evaluation.engines.ENGINES`.
            Their numbers are equal.
        proposal_nums: how many detections of a class in an image count. Recalls are
            computed for each, precisions for the largest. None counts as mmdet does
            without it: 100 for ``mAP``, as COCO, 1000 for the other precisions, and
            100, 300 and 1000 for recalls.
        **kwargs: other arguments of ``CocoMetric``, but not ``sort_categories`` (labels
            follow the classes of the data set, by name), ``use_mp_eval`` (engines are
            faster) and the metric ``'proposal_fast'`` (``'proposal'`` has the recall).

    Attributes:
        engine: see there; it may be replaced.
        limit: detections of a class in an image that count for ``mAP``.

    Raises:
        SettingError: if a setting is one of these three, ``metric_items`` names what
            there is not, ``proposal_nums`` are no numbers, or there is no such engine.
        BadDataError: if the file is not in COCO format.
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
        for name in {'sort_categories', 'use_mp_eval'} & kwargs.keys():
            raise SettingError(f'RFDETRCocoMetric has no {name}: leave it out.')
        super().__init__(backend_args=backend_args, **kwargs)
        self.iou_thrs = np.atleast_1d(self.iou_thrs)  # may be given as a list
        is_default = proposal_nums is None
        numbers = _DEFAULT_NUMS if is_default else np.atleast_1d(proposal_nums).tolist()
        for number in numbers or [0]:
            check_counts(proposal_nums=number)
        self.proposal_nums = sorted(set(numbers))
        self.limit = _DEFAULT_NUMS[0] if is_default else self.proposal_nums[-1]
        items = (*PRECISIONS, *recall_names(self.proposal_nums))
        for key, known in (('metrics', KINDS), ('metric_items', items)):
            for name in getattr(self, key) or ():
                if name not in known:
                    raise SettingError(f'{key}: {name!r} is none of {[*known]}')
        self.engine = choose_engine(engine)
        self._ann_file = ann_file
        if ann_file is not None:
            self._coco_api = build_index(self._read_annotations())
            for metric in self.metrics:
                KINDS[metric].check(self._coco_api, {})

    def _read_annotations(self) -> dict:
        return read_annotations(self._ann_file, self.backend_args)

    @CocoMetric.dataset_meta.setter
    def dataset_meta(self, meta: dict | Sequence[dict]) -> None:
        """Take the classes, and find them before anything is evaluated.

        Args:
            meta: of a data set, or of each of several that are joined.

        Raises:
            BadDataError: if the file has none of the classes, or spells one otherwise.
        """
        self._dataset_meta = meta
        # mmdet's MultiDatasetsEvaluator hands over all, and later each its own.
        if self._coco_api is not None and isinstance(meta, Mapping):
            self._match_classes(self._coco_api)

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
            yield from self._items(metric)
            if metric != 'proposal' and self.classwise:
                yield from (f'{name}_precision' for name in self._classes())

    def _items(self, metric: str) -> dict[str, str]:
        """The averages of a metric by their names in the result."""
        if metric == 'proposal':
            return {n: n for n in self.metric_items or recall_names(self.proposal_nums)}
        return {f'{metric}_{n}': n for n in self.metric_items or PRECISIONS}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the images that were looked at.

        Args:
            results: what ``process`` collected: (ground truth, predictions) of images.

        Returns:
            mmdet's names and values; nothing with ``format_only``.
        """
        logger: MMLogger = MMLogger.get_current_instance()
        targets, predictions = zip(*results, strict=True)
        index = self._coco_api or self._index_of_samples(targets)
        self.cat_ids = self._match_classes(index)
        if self.outfile_prefix is not None:
            self.results2json(predictions, self.outfile_prefix)
        if self.format_only:
            logger.info(f'results are saved in {Path(self.outfile_prefix).parent}')
            return {}
        parts = targets, predictions
        targets, predictions = (sorted(part, key=_order) for part in parts)
        sizes = {each['img_id']: (each['height'], each['width']) for each in targets}
        self.img_ids = list(sizes)
        assert len(sizes) == len(predictions), 'an image was evaluated twice'
        boxes = box_columns(predictions)
        if not self._are_finite(boxes, logger):
            return dict.fromkeys(self._names(), float('nan'))
        ground_truth = select(index, sizes, self.cat_ids)
        found: dict[str, float] = {}
        for metric in self.metrics:
            logger.info(f'Evaluating {metric}...')
            kind = KINDS[metric]
            kind.check(index, sizes)
            detections = kind.gather(predictions) if kind.gather else boxes
            if not len(detections):
                logger.error('The testing results of the whole dataset is empty.')
                break
            evaluator = self.engine(ground_truth, detections, kind.iou_type)
            found.update(self._count(evaluator, metric, logger))
        return {name: round(value, _DIGITS) for name, value in found.items()}

    def _index_of_samples(self, targets: Sequence[dict]) -> COCO:
        self._dataset_meta = dict(classes=self._classes())
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or str(Path(folder, 'results'))
            return COCO(self.gt_to_coco_json(targets, prefix))

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Write detections; those of a class that the file lacks have no id there."""
        has_id = np.array([key is not None for key in self.cat_ids])
        known = [np.flatnonzero(has_id[result['labels']]) for result in results]
        results = [
            {
                name: value if name == 'img_id' else [value[place] for place in places]
                for name, value in result.items()
            }
            for result, places in zip(results, known, strict=True)
        ]
        return super().results2json(results, outfile_prefix)

    def _count(
        self, evaluator: COCOeval, metric: str, logger: MMLogger
    ) -> dict[str, float]:
        """Compute the averages of one metric, and print them as mmdet does."""
        # Without categories, pycocotools takes their objects in this order.
        evaluator.params.catIds = list(range(len(self.cat_ids)))
        evaluator.params.useCats = int(metric != 'proposal')
        evaluator.params.maxDets = list(self.proposal_nums)
        evaluator.params.iouThrs = self.iou_thrs
        count(evaluator)
        averages = summarize(evaluator, self.limit)
        # First of all, for save_best='auto'.
        found = {name: averages[item] for name, item in self._items(metric).items()}
        if metric != 'proposal':
            if self.classwise:
                precisions, table = class_precisions(evaluator, self._classes())
                logger.info('\n' + table)
                found |= {f'{name}_precision': ap for name, ap in precisions.items()}
            copied = ' '.join(f'{averages[name]:.3f}' for name in PRECISIONS)
            logger.info(f'{metric}_mAP_copypaste: {copied}')
        return found

    def _are_finite(self, boxes: np.ndarray, logger: MMLogger) -> bool:
        """Whether there is anything to compute with; log what is not finite."""
        broken = np.unique(boxes[~np.isfinite(boxes).all(axis=1), 0]).astype(int)
        if len(broken):
            examples = ', '.join(repr(self.img_ids[image]) for image in broken[:3])
            logger.error(
                f'The model gave detections that are not finite (NaN or infinity) for '
                f'{len(broken)} of {len(self.img_ids)} images, for example {examples}: '
                'every metric is NaN, and this is no best checkpoint. Its weights are '
                'not finite, or a number is too large for model.precision.dtype: '
                'evaluate an earlier checkpoint, or with model.precision=None.'
            )
        return not len(broken)


def _order(entry: dict) -> tuple[bool, Hashable]:
    """By image id, numbers before text: pycocotools breaks ties by this order."""
    return isinstance(entry['img_id'], str), entry['img_id']
