"""Data sets and transforms that bring points to the network."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from mmcv.transforms import RandomFlip
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.logging import print_log
from rfdetr_datasets.points import points_of_categories, swapped_names

from ..data import multi_scale
from ..errors import SettingError
from .annotated_points import PointFinding, clean_points, complete_metainfo
from .point_boxes import PointBoxes

multi_scale.IN_PIXELS.add('keypoints')
STATED = 'area', 'keypoints', 'num_keypoints'
"""What is kept of an annotation as it stands."""


# The data set of the shipped configs, whichever part of the package has that name.
@DATASETS.register_module()
class RFDETRCocoKeypointDataset(DATASETS.get('RFDETRCocoDataset')):
    """COCO keypoint files, also those of annotation platforms.

    ``metainfo`` may hold what MMPose's does: ``keypoint_info``, ``skeleton_info``,
    ``flip_indices``, ``sigmas``. What it leaves out is taken from the file by the
    official rules, see :func:`complete_metainfo`, and added; with the metainfo it goes
    into checkpoints. Objects without points are learned as boxes. Where left and right
    are not known no image is mirrored: flips are switched off, with a warning.

    Args:
        ann_file: the annotations.
        metainfo: see above; ``from_file`` names a file of MMPose with these keys in
            its ``dataset_info``, beside which others may stand.
        *args: other arguments of ``RFDETRCocoDataset``.
        **kwargs: likewise.
    """

    def __init__(self, ann_file='', metainfo=None, *args, **kwargs) -> None:
        if (path := (metainfo or {}).get('from_file')) is not None:
            rest = {key: x for key, x in metainfo.items() if key != 'from_file'}
            metainfo = read_metainfo(path) | rest
        super().__init__(ann_file, metainfo, *args, **kwargs)

    def read_document(self) -> dict:
        """Read ``ann_file``, and complete the metainfo from it."""
        document = super().read_document()
        categories = document['categories']
        points = points_of_categories(categories, document['annotations'])
        found = complete_metainfo(self._metainfo, points, categories)
        self._metainfo.update(found)
        for names in points.values():
            for name in swapped_names(names)[1]:
                self._report_point(PointFinding.PARTNER, f'point {name}')
        if found['flip_indices'] is None and _never_flip(self.pipeline.transforms):
            print_log(
                f'{self.ann_file} does not tell left from right points: no image is '
                'mirrored. Name them left_... and right_..., or set metainfo='
                'dict(flip_indices=[...]).',
                'current',
                logging.WARNING,
            )
        return document

    def _report_point(self, finding: PointFinding, example: Any) -> None:
        """Add to the table of findings, where something makes one."""
        if (findings := getattr(self, 'findings', None)) is not None:
            findings.add(finding, example)

    def parse_object(self, annotation: dict, size: tuple[int, int]) -> dict | None:
        """Convert an object in an image of (height, width); None if nothing is left."""
        instance = super().parse_object(annotation, size)
        if instance is None:
            return None
        counts = self._metainfo['num_keypoints']
        points, found = clean_points(
            annotation.get('keypoints'),
            counts[instance['bbox_label']],
            max(counts),
            size,
        )
        for finding in found:
            self._report_point(finding, annotation)
        # As annotated, for a metric without an annotation file.
        stated = {key: annotation[key] for key in STATED if key in annotation}
        return dict(instance, keypoints=points.tolist(), stated=stated)

    def get_data_info(self, idx: int) -> dict:
        """What the pipeline gets of an image."""
        keys = 'num_keypoints', 'flip_indices'
        return super().get_data_info(idx) | {key: self._metainfo[key] for key in keys}


def read_metainfo(path: str) -> dict[str, Any]:
    """What a file of MMPose's metainfo says of points.

    Raises:
        SettingError: if it has no ``dataset_info``.
    """
    found = Config.fromfile(path).get('dataset_info')
    if not isinstance(found, dict):
        raise SettingError(
            f'metainfo.from_file={path!r} has no dict dataset_info, as those of MMPose '
            'have: name another file, or write keypoint_info into metainfo'
        )
    keys = 'keypoint_info', 'skeleton_info', 'flip_indices', 'sigmas'
    return {key: found[key] for key in keys if key in found}


def _never_flip(steps: Iterable) -> bool:
    """Switch off what mirrors, also within other transforms; whether anything did."""
    found = False
    for step in steps:
        if isinstance(step, RandomFlip):
            step.prob, found = 0.0, True
        elif getattr(step, 'flip_prob', 0):
            step.flip_prob, found = 0.0, True
        found |= _never_flip(getattr(step, 'transforms', ()))
    return found


@TRANSFORMS.register_module()
class RFDETRLoadKeypoints(LoadAnnotations):
    """Load boxes and labels, and points that go with the boxes.

    Arguments, and keys read and written, are those of mmdet's ``LoadAnnotations``; the
    boxes are :class:`PointBoxes`. A picture of which nothing is known, as inference
    functions load them, has no boxes and no points.
    """

    def _load_bboxes(self, results: dict) -> None:
        """Load the boxes with their points.

        Raises:
            SettingError: if the data set has boxes without points.
        """
        counts, instances = results.get('num_keypoints'), results.get('instances', [])
        if instances and not counts:
            raise SettingError(
                'RFDETRLoadKeypoints needs points: set the type of the data set to '
                'RFDETRCocoKeypointDataset, or load with LoadAnnotations'
            )
        super()._load_bboxes(results)
        rows = [instance['keypoints'] for instance in instances]
        results['gt_bboxes'] = PointBoxes(
            results['gt_bboxes'].tensor,
            clone=False,
            points=torch.tensor(rows).view(len(rows), max(counts or [0]), 3),
            swap=results.get('flip_indices'),
        )


@TRANSFORMS.register_module()
class RFDETRPackKeypoints(PackDetInputs):
    """Pack with ``keypoints`` (T, K, 2) in pixels and ``keypoints_visible`` (T, K).

    Arguments are those of mmdet's ``PackDetInputs``.
    """

    def transform(self, results: dict) -> dict:
        """Pack; arguments and result are mmdet's.

        Raises:
            SettingError: if a transform lost the points.
        """
        packed = super().transform(results)
        sample = packed['data_samples']
        sample.set_metainfo(dict(num_keypoints=results.get('num_keypoints')))
        for name in ('gt_instances', 'ignored_instances'):
            instances = sample.get(name, {})
            if 'bboxes' not in instances:
                continue
            boxes = instances.bboxes
            if not isinstance(boxes, PointBoxes):
                raise SettingError(
                    'RFDETRPackKeypoints found boxes without points: load with '
                    'RFDETRLoadKeypoints, and take out what makes boxes anew'
                )
            instances.keypoints = boxes.points[..., :2]
            instances.keypoints_visible = boxes.points[..., 2].long()
            instances.bboxes = HorizontalBoxes(boxes.tensor, clone=False)
        return packed
