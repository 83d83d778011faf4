"""Points of drawn figures on their way to a model, and COCO's average of them.

Only what the figures need: all have the same points, and nothing moves a picture.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.api_wrappers import COCOeval
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import DATASETS, METRICS, TRANSFORMS
from mmengine.logging import MMLogger

from ..data.coco_dataset import RFDETRCocoDataset
from ..evaluation.coco_metric import RFDETRCocoMetric
from ..evaluation.ground_truth import select
from .figures import POINTS

NAMES = [
    'mAP',
    'mAP_50',
    'mAP_75',
    'mAP_m',
    'mAP_l',
    'AR',
    'AR_50',
    'AR_75',
    'AR_m',
    'AR_l',
]
"""COCO's ten numbers of points."""
SIGMA = 0.05
"""Of points that no table knows, as the official package has it."""


@DATASETS.register_module()
class RFDETRDemoPointsDataset(RFDETRCocoDataset):
    """What ``RFDETRDemoFigures`` has drawn, with the points of each figure."""

    def parse_object(self, annotation: dict, size: tuple[int, int]) -> dict | None:
        """Keep the points beside the box."""
        instance = super().parse_object(annotation, size)
        if instance is not None:
            instance['keypoints'] = annotation['keypoints']
        return instance


@TRANSFORMS.register_module()
class RFDETRLoadDemoPoints(BaseTransform):
    """Add ``gt_keypoints`` (T, 5, 2) in pixels and ``gt_keypoints_visible`` (T, 5)."""

    def transform(self, results: dict) -> dict:
        """Argument and result are mmcv's."""
        points = [instance['keypoints'] for instance in results['instances']]
        points = np.array(points, np.float32).reshape(-1, len(POINTS), 3)
        results['gt_keypoints'] = points[..., :2]
        results['gt_keypoints_visible'] = points[..., 2]
        return results


@TRANSFORMS.register_module()
class RFDETRPackDemoPoints(PackDetInputs):
    """mmdet's ``PackDetInputs``, with the points."""

    mapping_table: ClassVar[dict[str, str]] = dict(
        PackDetInputs.mapping_table,
        gt_keypoints='keypoints',
        gt_keypoints_visible='keypoints_visible',
    )


@METRICS.register_module()
class RFDETRDemoPointsMetric(RFDETRCocoMetric):
    """``RFDETRCocoMetric``, and COCO's ten numbers of points as ``keypoints_mAP``."""

    def _names(self) -> Iterator[str]:
        yield from super()._names()
        yield from (f'keypoints_{name}' for name in NAMES)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Collect what the metric of boxes does, and points."""
        super().process(data_batch, data_samples)
        collected = self.results[-len(data_samples) :]
        for sample, (_, found) in zip(data_samples, collected, strict=True):
            instances = sample['pred_instances']
            scores = instances['keypoint_scores'][..., None]
            parts = (part.cpu().numpy() for part in (instances['keypoints'], scores))
            found['keypoints'] = list(np.concatenate([*parts], axis=-1, dtype=float))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Numbers of boxes, and of points with a sigma of 0.05."""
        found = super().compute_metrics(results)
        MMLogger.get_current_instance().info('Evaluating keypoints...')
        order = {key: rank for rank, key in enumerate(self.img_ids)}
        shapes = {one['img_id']: (one['height'], one['width']) for one, _ in results}
        truth = select(
            self._coco_api, {key: shapes[key] for key in order}, self.cat_ids
        )
        rows = [
            dict(
                image_id=order[each['img_id']],
                category_id=int(label),
                score=float(score),
                keypoints=points.ravel().tolist(),
            )
            for _, each in results
            for label, score, points in zip(
                each['labels'], each['scores'], each['keypoints'], strict=True
            )
        ]
        names = [f'keypoints_{name}' for name in NAMES]
        if not rows:
            return {**found, **dict.fromkeys(names, float('nan'))}
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOeval(truth, truth.loadRes(rows), 'keypoints')
            evaluator.params.kpt_oks_sigmas = np.full(len(POINTS), SIGMA)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return {**found, **dict(zip(names, map(float, evaluator.stats), strict=True))}
