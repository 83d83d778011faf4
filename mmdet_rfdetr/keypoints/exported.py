"""What an exported file of a pose model says of its detections, and of their points."""

from collections.abc import Mapping

from torch import Tensor

from ..models.detections import top_scores

RESULTS = 'keypoints', 'keypoint_scores', 'keypoint_covariances'


def in_order(found: Mapping[str, Tensor], scores: Tensor) -> dict[str, Tensor]:
    """Bring detections (B, n, ...) into the order of new scores (B, n)."""
    scores, order = top_scores(scores, scores.shape[-1])
    sorted_ = {}
    for name, values in found.items():
        index = order.view(*order.shape, *[1] * (values.dim() - 2))
        sorted_[name] = values.gather(1, index.expand(-1, -1, *values.shape[2:]))
    return dict(sorted_, scores=scores)


def describe_points(dataset_meta: Mapping) -> dict[str, list]:
    """Names of points and pairs of their numbers, in plain Python.

    Args:
        dataset_meta: with MMPose's ``keypoint_info`` and ``skeleton_info``, if any.
    """
    points = dataset_meta.get('keypoint_info') or {}
    names = [points[number]['name'] for number in sorted(points)]
    lines = (dataset_meta.get('skeleton_info') or {}).values()
    skeleton = [[names.index(end) for end in line['link']] for line in lines]
    return dict(names=names, skeleton=skeleton)
