"""COCO's metric of keypoints beside that of boxes, on any engine."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import METRICS
from mmengine.fileio import dump
from mmengine.logging import MMLogger
from rfdetr_datasets.points import points_of_categories

from ..class_names import read_class_list, show_classes
from ..errors import BadDataError, SettingError
from ..evaluation.ground_truth import build_index
from ..evaluation.predictions import KINDS, Kind

# The one that configs mean, also where a wing has taken the name.
CocoMetric = METRICS.module_dict['RFDETRCocoMetric']
_COCO = 26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89
_SIGMA = 0.05  # of points that nobody has measured, as officially
_ENDS = '', '_50', '_75', '_m', '_l'
NAMES = tuple(f'keypoints_{kind}{end}' for kind in ('mAP', 'AR') for end in _ENDS)
"""The ten numbers of COCO, in its order."""
_FIELDS = 'labels', 'scores', 'keypoints'
_FAR = 1e9  # pixels


def keypoint_columns(predictions: Sequence[dict]) -> list[dict]:
    """Points of all detections: image, label, score, and (Kmax, 3) x, y, score."""
    return [
        dict(image_id=image, category_id=int(label), score=float(score), keypoints=x)
        for image, each in enumerate(predictions)
        for label, score, x in zip(*map(each.get, _FIELDS), strict=True)
    ]


KINDS['keypoints'] = Kind('keypoints', keypoint_columns)


@METRICS.register_module()
class RFDETRCocoKeypointMetric(CocoMetric):
    """``RFDETRCocoMetric`` with the ten numbers of COCO's keypoint evaluation.

    Its names are ``keypoints_mAP``, ``_50``, ``_75``, ``_m``, ``_l`` and
    ``keypoints_AR`` with the same ends. At most 20 detections of a class in an image
    count; objects without a labelled point are ignored, and a missing
    ``num_keypoints`` is counted. Classes of different numbers of points are evaluated
    by their number, and the means weighted by classes, as officially.

    Args:
        *args: arguments of ``RFDETRCocoMetric``.
        metric: ``'keypoints'`` and those of ``RFDETRCocoMetric``.
        sigmas: tolerance of each point, of classes with fewer the first of them; None
            takes those of ``metainfo``, else COCO's for 17 points and 0.05 for others.
        **kwargs: arguments of ``RFDETRCocoMetric``.
    """

    def __init__(
        self,
        *args,
        metric: str | Sequence[str] = ('bbox', 'keypoints'),
        sigmas: Sequence[float] | None = None,
        **kwargs,
    ) -> None:
        metrics = [metric] if isinstance(metric, str) else [*metric]
        others = [name for name in metrics if name != 'keypoints']
        super().__init__(*args, metric=others, **kwargs)
        self.metrics = metrics
        self.sigmas = sigmas
        self._plain, self.engine = self.engine, self._evaluators

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collect the predictions of a batch.

        Raises:
            SettingError: if the model finds no keypoints.
        """
        first = len(self.results)
        super().process(data_batch, data_samples)
        for (_, found), sample in zip(self.results[first:], data_samples, strict=True):
            made = sample['pred_instances']
            if 'keypoints' not in made:
                raise SettingError(
                    'RFDETRCocoKeypointMetric evaluates keypoints, and the model finds '
                    'none: set model.keypoint_head, or the metric RFDETRCocoMetric'
                )
            parts = made['keypoints'], made['keypoint_scores'][..., None]
            found['keypoints'] = np.concatenate([np.asarray(x.cpu()) for x in parts], 2)
            # Then no metric is a number, and an error says why.
            broken = ~np.isfinite(found['keypoints']).all((1, 2))
            found['bboxes'] = np.where(broken[:, None], np.nan, found['bboxes'])

    def _items(self, metric: str) -> dict[str, str]:
        own = dict(zip(NAMES, NAMES, strict=True))
        return own if metric == 'keypoints' else super()._items(metric)

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Write boxes as mmdet does, and points to ``PREFIX.keypoints.json``.

        There are no boxes in the latter: with them, pycocotools takes their area for
        that of the points.
        """
        files = super().results2json(results, outfile_prefix)
        if 'keypoints' not in self.metrics:
            return files
        files['keypoints'] = f'{outfile_prefix}.keypoints.json'
        entries = [
            dict(
                image_id=result['img_id'],
                category_id=self.cat_ids[label],
                score=float(score),
                keypoints=points[: self._counts[label]].ravel().tolist(),
            )
            for result in results
            for label, score, points in zip(*map(result.get, _FIELDS), strict=True)
            if self.cat_ids[label] is not None and self._counts[label]
        ]
        dump(entries, files['keypoints'])
        return files

    def _index_of_samples(self, targets: Sequence[dict]) -> COCO:
        known = dict(num_keypoints=self._stated_counts(), sigmas=self._stated('sigmas'))
        index = super()._index_of_samples(targets)  # keeps the classes alone
        self._dataset_meta = dict(self._dataset_meta, **known)
        objects = (entry for target in targets for entry in target['anns'])
        for entry, instance in zip(index.dataset['annotations'], objects, strict=True):
            points = np.ravel(instance.get('keypoints', ())).tolist()
            entry.update(dict(keypoints=points), **instance.get('stated', {}))
        return index

    def _evaluators(self, truth: COCO, detections, iou_type: str):
        """The engine's evaluator; of keypoints one for each number of points."""
        if iou_type != 'keypoints':
            return self._plain(truth, detections, iou_type)
        evaluators, sigmas = [], self._sigmas()
        self._compare_counts(len(detections[0]['keypoints']))
        for count in sorted({*self._counts} - {0}):
            labels = [label for label, own in enumerate(self._counts) if own == count]
            objects = _with_points(truth, labels, count)
            found = _results(detections, labels, count)
            evaluator = self._plain(objects, found, iou_type)
            evaluator.params.catIds, evaluator.params.maxDets = labels, [20]
            evaluator.params.kpt_oks_sigmas = oks_sigmas(sigmas, count)
            evaluators.append(evaluator)
        return evaluators

    def _compare_counts(self, made: int) -> None:
        """Say if the model finds another number of points than the data have.

        Raises:
            SettingError: if it finds fewer.
        """
        most = max(self._counts)
        said = (
            f'The model finds {made} points of an object, and the classes have '
            f'{self._counts} in the data that are evaluated: '
        )
        if made < most:
            raise SettingError(f'{said}set model.keypoint_head.num_keypoints')
        if made > most:
            logger = MMLogger.get_current_instance()
            logger.warning(f'{said}the first {most} are compared.')

    def _sigmas(self) -> Sequence[float] | None:
        """What the metric or the metainfo states, for the class with the most points.

        Raises:
            SettingError: if it is of other points.
        """
        stated = self.sigmas if self.sigmas is not None else self._stated('sigmas')
        if stated is not None and np.size(stated) != max(self._counts):
            raise SettingError(
                f'{np.size(stated)} sigmas are stated and a class has '
                f'{max(self._counts)} points: correct metainfo.sigmas or sigmas of the '
                'metric'
            )
        return stated

    def _metas(self) -> list[dict]:
        """What is known of the data set, or of each of several that are joined."""
        meta = self.dataset_meta
        return [meta] if isinstance(meta, dict) else [*meta]

    def _stated(self, key: str) -> Any:
        """What the first of them states that does."""
        return next(
            (x for meta in self._metas() if (x := meta.get(key)) is not None), None
        )

    def _stated_counts(self) -> list[int] | None:
        """Points of each class, by its name in any of them; None if none says."""
        found: dict[str, int] = {}
        for meta in self._metas():
            names, counts = read_class_list(meta['classes']), meta.get('num_keypoints')
            for name, count in zip(names, counts or (), strict=False):
                found[name] = max(count, found.get(name, 0))
        return [found.get(name, 0) for name in self._classes()] if found else None

    def _match_classes(self, index: COCO) -> list:
        """Category id of each label; how many points each has is found, too."""
        if 'keypoints' in self.metrics:
            self._counts = self._stated_counts()
            self._counts = self._counts or count_points(index.dataset, self._classes())
        return super()._match_classes(index)

    def _count(self, evaluator: object, metric: str, logger: MMLogger) -> dict:
        if metric != 'keypoints':
            return super()._count(evaluator, metric, logger)
        for each in evaluator:
            sigmas = each.params.kpt_oks_sigmas.round(6).tolist()
            logger.info(f'keypoints of {len(sigmas)} points, sigmas {sigmas}')
            each.evaluate()
            each.accumulate()
            each.summarize()
        stats = [each.stats for each in evaluator]
        if len(stats) > 1:  # the official mean is one of float32
            counts = [[len(each.params.catIds)] for each in evaluator]
            weights = np.float32(counts) * (np.float32(stats) > -1)
            total = weights.sum(0)
            mean = (np.float32(stats) * weights).sum(0) / np.maximum(total, 1)
            stats = [np.where(total > 0, mean, -1)]
        return dict(zip(NAMES, map(float, stats[0]), strict=True))


def count_points(document: dict, classes: Sequence[str]) -> list[int]:
    """Points of each class: the names of its category, else its longest annotation.

    Args:
        document: with ``categories`` and ``annotations``.
        classes: names.

    Raises:
        BadDataError: if none has any.
    """
    named = points_of_categories(document['categories'], document['annotations'])
    found = [len(named.get(name, ())) for name in classes]
    if not any(found):
        raise BadDataError(
            f'None of the classes {show_classes(classes)} has keypoints to evaluate: '
            "set ann_file of the metric to a file with them, or metric='bbox'"
        )
    return found


def oks_sigmas(stated: Sequence[float] | None, count: int) -> np.ndarray:
    """Tolerances of the first ``count`` points, (count,).

    All but COCO's are rounded to float32, as the official ones are.

    Args:
        stated: of the metric or the metainfo, ``count`` or more; None is COCO's for 17
            points, and 0.05 for others.
        count: points of a class.

    Raises:
        SettingError: if one is not above 0.
    """
    if stated is None:
        if count == 17:
            return np.array(_COCO) / 1000
        stated = [_SIGMA] * count
    try:
        sigmas = np.array(stated, np.float32).astype(float)
    except (TypeError, ValueError):
        sigmas = np.zeros(1)
    if sigmas.ndim != 1 or not (np.isfinite(sigmas) & (sigmas > 0)).all():
        raise SettingError(
            f'sigmas={list(stated)} must be numbers above 0, one for each point: '
            'correct metainfo.sigmas or sigmas of the metric'
        )
    return sigmas[:count]


def _with_points(truth: COCO, labels: Sequence[int], count: int) -> COCO:
    """The objects of some classes, with as many points as these have."""
    objects = []
    for entry in truth.dataset['annotations']:
        if entry['category_id'] in labels:
            points = _read_points(entry.get('keypoints'), count)
            stated = entry.get('num_keypoints')
            is_known = isinstance(stated, int)
            seen = stated if is_known else np.count_nonzero(points[2::3] > 0)
            points = points.tolist()
            objects.append(dict(entry, keypoints=points, num_keypoints=int(seen)))
    return build_index(dict(truth.dataset, annotations=objects))


def _read_points(values: object, count: int) -> np.ndarray:
    """x, y and visibility of ``count`` points, one after the other; 0 if broken."""
    whole = np.zeros(3 * count)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        flat = np.array(values or (), dtype=float).reshape(-1)[: 3 * count]
        whole[: len(flat)] = np.nan_to_num(flat)
    return whole


def _results(found: Sequence[dict], labels: Sequence[int], count: int) -> list[dict]:
    """Detections as pycocotools takes them, which has to be one at least."""
    far = np.full((count, 3), _FAR)
    absent = dict(image_id=0, category_id=labels[0], score=0.0, keypoints=far)
    return [
        dict(each, keypoints=each['keypoints'][:count].ravel().tolist())
        for each in [x for x in found if x['category_id'] in labels] or [absent]
    ]
