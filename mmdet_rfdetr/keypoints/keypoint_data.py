"""Data sets and transforms that bring points to the network."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from mmcv.transforms import RandomFlip
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.logging import print_log
from rfdetr_datasets.points import points_of_categories, stated_swap, swapped_names

from ..data import multi_scale
from ..errors import SettingError
from .annotated_points import PointFinding, clean_points, complete_metainfo
from .point_boxes import PointBoxes

multi_scale.IN_PIXELS.add('keypoints')


# The data set of the shipped configs, whichever part of the package has that name.
@DATASETS.register_module()
class RFDETRCocoKeypointDataset(DATASETS.get('RFDETRCocoDataset')):
    """COCO keypoint files, also those of annotation platforms.

    ``metainfo`` may hold what MMPose's does: ``keypoint_info``, ``skeleton_info``,
    ``flip_indices``, ``sigmas``. What it leaves out is taken from the file by the
    official rules, see :func:`complete_metainfo`, and added; with the metainfo it goes
    into checkpoints. Objects without points are learned as boxes. Where left and right
    are not known no image is mirrored: flips are switched off, with a warning.

    Arguments are those of ``RFDETRCocoDataset``.
    """

    def read_document(self) -> dict:
        """Read ``ann_file``, and complete the metainfo from it."""
        document = super().read_document()
        categories = document['categories']
        points = points_of_categories(categories, document['annotations'])
        stated = dict(flip_indices=stated_swap(categories)) | self._metainfo
        found = complete_metainfo(stated, points, categories)
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
        return dict(instance, keypoints=points.tolist())

    def get_data_info(self, idx: int) -> dict:
        """What the pipeline gets of an image."""
        keys = 'num_keypoints', 'flip_indices'
        return super().get_data_info(idx) | {key: self._metainfo[key] for key in keys}


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
