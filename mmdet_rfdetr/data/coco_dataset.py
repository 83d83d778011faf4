"""A COCO data set that checks what it reads, and goes on."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from ..data.annotations import match_categories, read_annotations
from ..errors import BadDataError, BadImageError, SettingError
from ..faults.annotations import clean_annotations
from ..faults.findings import Finding, Findings
from ..faults.image_files import check_files, is_url, read_names
from ..ops.masks import mask_problem
from .images import AS_OFFICIAL, Reading
from .loading import guard_loader

POLICIES = ('skip', 'error')
_TOLERANCE = 1.0  # pixels; annotation tools round


@DATASETS.register_module()
class RFDETRCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset`` for annotations and images as they really are.

    Whatever the file and the images hold is checked when the data set is built, and
    told in one table: what it is, how often, and what is done about it. An image
    that turns out to be broken later is skipped in training and taken as black in
    evaluation; ``RFDETRBadDataHook`` reports these at the end of an epoch.

    Differences to ``CocoDataset``: boxes below one pixel are kept, as the official
    package does; boxes are clipped to their image; ``LoadImageFromFile`` in the
    pipeline is replaced, see :func:`~mmdet_rfdetr.data.loading.guard_loader`; labels
    follow ``metainfo.classes`` by name, whatever the order of the categories in the
    file.

    Attributes:
        object_counts: objects to learn of each usable image, before ``filter_cfg``
            and ``indices``.

    Args:
        bad_data: ``'skip'`` leaves out what cannot be used, ``'error'`` stops the run
            with the table if there is any fault.
        check_images: whether to look at the header of every image file first. It
            takes some 10 s for 100 000 files on a local disk. Files that are not
            local are not looked at.
        **kwargs: arguments of ``CocoDataset``.

    Raises:
        BadDataError: if the file cannot be used at all, or for any fault with
            ``bad_data='error'``.
    """

    def __init__(
        self, *args, bad_data: str = 'skip', check_images: bool = True, **kwargs
    ) -> None:
        if bad_data not in POLICIES:
            raise SettingError(f'bad_data={bad_data!r} must be one of {POLICIES}')
        self.bad_data = bad_data
        self.check_images = check_images
        metainfo = kwargs.get('metainfo', args[1] if len(args) > 1 else None)
        self._names_classes = 'classes' in (metainfo or ())
        super().__init__(*args, **kwargs)
        self.pipeline.transforms = [
            guard_loader(transform) for transform in self.pipeline.transforms
        ]

    @classmethod
    def _load_metainfo(cls, metainfo: Mapping | None = None) -> dict:
        try:
            return super()._load_metainfo(metainfo)
        except UnicodeDecodeError as error:
            raise SettingError(
                f'metainfo names a file of classes that is no text in UTF-8 ({error}): '
                'save it as UTF-8, a name in each line.'
            ) from error

    @property
    def reading(self) -> Reading:
        """How the loader of the pipeline reads pixels."""
        readings = (getattr(step, 'reading', None) for step in self.pipeline.transforms)
        return next(filter(None, readings), AS_OFFICIAL)

    def load_data_list(self) -> list[dict]:
        """Read, check and report; the result is mmdet's."""
        self.findings = Findings(self.ann_file)
        document = read_annotations(
            self.ann_file, self.backend_args, needs_objects=not self.test_mode
        )
        document = clean_annotations(document, self.findings)
        self.cat2label = match_categories(
            document['categories'],
            self.metainfo['classes'],
            self.ann_file,
            # Whoever forgets metainfo trains with the classes of COCO.
            needs_most=not self.test_mode and not self._names_classes,
        )
        self.cat_ids = list(self.cat2label)
        category = {label: key for key, label in self.cat2label.items()}
        objects = defaultdict(list)
        for annotation in document['annotations']:
            objects[annotation['image_id']].append(annotation)

        data_list = []
        self.cat_img_map = defaultdict(list)
        for image in self._check_files(document['images']):
            info = self.parse_data_info(
                dict(raw_img_info=image, raw_ann_info=objects[image['id']])
            )
            if info is None:
                continue
            for label in {instance['bbox_label'] for instance in info['instances']}:
                self.cat_img_map[category[label]].append(image['id'])
            # Stays with the image through filters and subsets.
            info['file_index'] = len(data_list)
            data_list.append(info)
        self.object_counts = [
            sum(not instance['ignore_flag'] for instance in info['instances'])
            for info in data_list
        ]
        self._report(len(document['images']), len(data_list))
        # Workers set a flag, the main process reads it.
        self.unreadable = torch.zeros(len(data_list), dtype=torch.bool).share_memory_()
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict | None:
        """Convert an image and its objects to mmdet's form.

        Args:
            raw_data_info: ``raw_img_info`` with ``height`` and ``width`` of the
                annotations and, if it is known, ``file_size``; ``raw_ann_info``.

        Returns:
            mmdet's dict, or None if the image cannot be used.
        """
        findings = self.findings
        image = dict(raw_data_info['raw_img_info'])
        name = f'image {image["id"]} ({image["file_name"]})'
        objects = raw_data_info['raw_ann_info']
        size = stated = (image['height'], image['width'])
        real = image.pop('file_size', None)
        if real is not None and stated not in real:
            if None in stated:
                findings.add(Finding.SIZE_MISSING, name)
            elif _fit(objects, real[-1]):
                findings.add(Finding.SIZE_WRONG, name)
            else:
                findings.add(Finding.BOXES_OF_OTHER_SIZE, name)
                return None
            size = real[-1]
        elif None in stated:
            findings.add(Finding.IMAGE_BROKEN, name)
            return None
        elif size[0] * size[1] > self.reading.max_pixels:
            findings.add(Finding.FILE_HUGE, name)
            return None
        image.update(img_id=image['id'], height=size[0], width=size[1])
        info = super().parse_data_info(dict(raw_img_info=image, raw_ann_info=[]))
        info['instances'] = [
            instance
            for annotation in objects
            if (instance := self._parse_object(annotation, size))
        ]
        if not info['instances']:
            findings.add(Finding.NO_OBJECTS, name)
        return info

    def _parse_object(self, annotation: dict, size: tuple[int, int]) -> dict | None:
        """Convert an object in an image of (height, width); None if it is no use."""
        findings = self.findings
        label = self.cat2label.get(annotation['category_id'])
        if label is None:
            findings.add(Finding.UNUSED_CATEGORY, annotation)
            return None
        x1, y1, width, height = annotation['bbox']
        x2, y2 = x1 + width, y1 + height
        if width <= 0 or height <= 0:
            findings.add(Finding.BOX_EMPTY, annotation)
            return None
        box = [
            max(x1, 0.0),
            max(y1, 0.0),
            min(x2, float(size[1])),
            min(y2, float(size[0])),
        ]
        if box[0] >= box[2] or box[1] >= box[3]:
            findings.add(Finding.BOX_OUTSIDE, annotation)
            return None
        overhang = max(abs(a - b) for a, b in zip(box, (x1, y1, x2, y2), strict=True))
        if overhang > _TOLERANCE:
            findings.add(Finding.BOX_OVER_BORDER, annotation)
        if annotation['ignore']:
            findings.add(Finding.IGNORED, annotation)
        elif annotation['iscrowd']:
            findings.add(Finding.CROWD, annotation)
        is_ignored = annotation['ignore'] or annotation['iscrowd']
        mask = annotation['segmentation']
        problem = mask_problem(mask, *size) if isinstance(mask, dict) else None
        if problem:
            findings.add(Finding.MASK_BROKEN, annotation)
            mask = []  # as every loader knows an object without a mask
        instance = dict(bbox=box, bbox_label=label, ignore_flag=is_ignored, mask=mask)
        return dict(instance, mask_problem=problem) if problem else instance

    def _check_files(self, images: list[dict]) -> list[dict]:
        """Leave out images without a usable file; add ``file_size`` to the others.

        Raises:
            FileNotFoundError: if no file exists, which means a wrong folder.
        """
        folder = self.data_prefix['img']
        is_local = not self.backend_args and not is_url(folder)
        images = read_names(images, folder if is_local else None, self.findings)
        if not is_local:
            return images
        usable = check_files(
            images, folder, self.findings, self.reading, headers=self.check_images
        )
        if images and self.findings.counts[Finding.FILE_MISSING] == len(images):
            name = images[0]['file_name']
            remedy = 'set data_root and data_prefix=dict(img=...)'
            if PureWindowsPath(name).drive:
                remedy = f'write paths below {folder} into file_name'
            raise FileNotFoundError(
                f'None of the {len(images)} images of {self.ann_file} exists, for '
                f'example {Path(folder, name)}: {remedy}.'
            )
        return usable

    def _report(self, listed: int, usable: int) -> None:
        """Log what was found in ``listed`` images; raise if that is too much."""
        findings = self.findings
        if findings.faults and self.bad_data == 'error':
            raise BadDataError(
                f'{findings.table()}\nMend these, or leave them out with '
                "bad_data='skip'."
            )
        if not usable:
            raise BadDataError(
                f'None of the {listed} images of {self.ann_file} can be used.\n'
                f'{findings.table()}'
            )
        if findings.counts:
            level = logging.WARNING if findings.faults else logging.INFO
            print_log(findings.table(), logger='current', level=level)

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline; None in training for an image that cannot be read."""
        info = self.get_data_info(idx)
        file_index = info['file_index']
        if not self.unreadable[file_index]:
            try:
                return self.pipeline(info)
            except BadImageError as error:
                if self.bad_data == 'error':
                    raise BadDataError(
                        f"{error}. Mend it, or skip such images with bad_data='skip'."
                    ) from error
                self.unreadable[file_index] = True
        if not self.test_mode:
            return None  # mmengine takes another one
        return self._run_black(idx)

    def _run_black(self, idx: int) -> Any:
        """Run the pipeline on a black image in the place of one."""
        infos = map(self.get_data_info, range(len(self)))
        others = (
            info['img_path']
            for info in infos
            if not self.unreadable[info['file_index']]
        )
        return self.pipeline(dict(self.get_data_info(idx), black_like=others))


def _fit(objects: list[dict], size: tuple[int, int]) -> bool:
    """Whether all boxes lie within (height, width), give or take a pixel."""
    return all(
        x + width <= size[1] + _TOLERANCE and y + height <= size[0] + _TOLERANCE
        for x, y, width, height in (annotation['bbox'] for annotation in objects)
    )
