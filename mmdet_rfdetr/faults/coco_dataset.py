"""A COCO data set that checks what it reads, and goes on."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import DATASETS
from mmengine import fileio
from mmengine.logging import print_log

from ..data.annotations import mask_problem
from ..data.coco_dataset import RFDETRCocoDataset
from ..data.images import AS_OFFICIAL, Reading, decode_image, naming_faults
from ..data.loading import RFDETRLoadImage, require_regular
from ..errors import BadDataError, BadImageError, SettingError
from .annotations import TOLERANCE, clean_annotations, fit, read_annotations
from .findings import Finding, Findings
from .image_files import check_files, is_url, read_names, require_some

POLICIES = ('skip', 'error')
# What mmcv raises for a file that it cannot decode, and hardly for anything else.
_DECODER_ERRORS = (OSError, AssertionError, cv2.error)


@DATASETS.register_module(name='RFDETRCocoDataset', force=True)
class CheckedCocoDataset(RFDETRCocoDataset):
    """The data set of the shipped configs, for files as they really are.

    Whatever the file and the images hold is checked when the data set is built, and
    logged in one table: what it is, how often, and what is done about it. An image
    that turns out to be broken later is skipped in training and taken as black in
    evaluation; ``RFDETRBadDataHook`` reports these at the end of an epoch.

    Attributes:
        findings: what was found.
        unreadable: (images before ``filter_cfg`` and ``indices``,) which of them could
            not be read, shared by all processes.

    Args:
        bad_data: ``'skip'`` leaves out what cannot be used, ``'error'`` stops the run
            with the table if there is any fault.
        check_images: whether to look at the header of every image file first. It
            takes some 5 s of CPU time for 100 000 files, and shows its progress on a
            terminal. Of files that are not local only some are looked at, to see
            that any is there.
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
        try:
            super().__init__(*args, **kwargs)
        except UnicodeDecodeError as error:  # annotation files are read elsewhere
            raise SettingError(
                f'metainfo names a file of classes that is not in UTF-8: {error}'
            ) from error
        for step in self.pipeline.transforms:
            _remark_on_pixels(step)

    @property
    def reading(self) -> Reading:
        """How the loader of the pipeline reads pixels."""
        readings = (getattr(step, 'reading', None) for step in self.pipeline.transforms)
        return next(filter(None, readings), AS_OFFICIAL)

    @property
    def image_backend(self) -> dict | None:
        """The ``backend_args`` of the pipeline, or else those of the annotations."""
        parts = (*self.pipeline.transforms, self)
        given = (getattr(part, 'backend_args', None) for part in parts)
        return next(filter(None, given), None)

    def load_data_list(self) -> list[dict]:
        """Read, check and report; the result is mmdet's."""
        self.findings = Findings(self.ann_file)
        data_list = super().load_data_list()
        for index, info in enumerate(data_list):
            info['file_index'] = index  # stays with it through filters and subsets
        self._report(len(data_list))
        # Workers set a flag, the main process reads it.
        self.unreadable = torch.zeros(len(data_list), dtype=torch.bool).share_memory_()
        return data_list

    def read_document(self) -> dict:
        """Read ``ann_file``, and leave out or complete what cannot be used."""
        document = read_annotations(
            self.ann_file, self.backend_args, needs_objects=not self.test_mode
        )
        document = clean_annotations(document, self.findings)
        self._listed = len(document['images'])
        return dict(document, images=self._check_files(document['images']))

    def _check_files(self, images: list[dict]) -> list[dict]:
        """Leave out images without a usable file; add ``file_size`` to the others.

        Raises:
            FileNotFoundError: if no file exists, which means a wrong folder.
            BadDataError: if none of some that are not local can be read.
        """
        folder = self.data_prefix['img']
        is_local = not self.image_backend and not is_url(folder)
        images = read_names(images, folder if is_local else None, self.findings)
        if not is_local:
            if self.check_images:
                require_some(images, folder, self.image_backend)
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

    def parse_data_info(self, raw_data_info: dict) -> dict | None:
        """Convert an image and its objects to mmdet's form.

        Args:
            raw_data_info: ``raw_img_info`` with ``height`` and ``width`` of the
                annotations and, if it is known, ``file_size``; ``raw_ann_info``.

        Returns:
            mmdet's dict, or None if the image cannot be used.
        """
        image = dict(raw_data_info['raw_img_info'])
        objects = raw_data_info['raw_ann_info']
        name = f'image {image["id"]} ({image["file_name"]})'
        stated = image['height'], image['width']
        sizes = image.pop('file_size', [stated])
        if stated not in sizes:
            finding = Finding.SIZE_MISSING
            if None not in stated:
                fits = fit(objects, sizes[-1])
                finding = Finding.SIZE_WRONG if fits else Finding.BOXES_OF_OTHER_SIZE
            image['height'], image['width'] = sizes[-1]
        elif None in stated:
            finding = Finding.IMAGE_BROKEN
        elif stated[0] * stated[1] > self.reading.max_pixels:
            finding = Finding.FILE_HUGE
        else:
            finding = None
        if finding:
            self.findings.add(finding, name)
        if finding not in (None, Finding.SIZE_MISSING, Finding.SIZE_WRONG):
            return None
        info = super().parse_data_info(dict(raw_img_info=image, raw_ann_info=objects))
        if not info['instances']:
            self.findings.add(Finding.NO_OBJECTS, name)
        return info

    def parse_object(self, annotation: dict, size: tuple[int, int]) -> dict | None:
        """Convert an object in an image of (height, width); None if it is no use."""
        instance = super().parse_object(annotation, size)
        add = self.findings.add
        x, y, width, height = annotation['bbox']
        box, whole = instance and instance['bbox'], [x, y, x + width, y + height]
        if annotation['category_id'] not in self.cat2label:
            add(Finding.UNUSED_CATEGORY, annotation)
        elif width <= 0 or height <= 0:
            add(Finding.BOX_EMPTY, annotation)
        elif instance is None:
            add(Finding.BOX_OUTSIDE, annotation)
        elif box != whole and np.abs(np.subtract(box, whole)).max() > TOLERANCE:
            add(Finding.BOX_OVER_BORDER, annotation)
        if instance is None:
            return None
        if instance['ignore_flag']:
            is_crowd = not annotation.get('ignore')
            add(Finding.CROWD if is_crowd else Finding.IGNORED, annotation)
        mask = instance['mask']
        problem = mask_problem(mask, *size) if isinstance(mask, dict) else None
        if problem:
            add(Finding.MASK_BROKEN, annotation)
            # An empty one is an object without a mask to every loader.
            instance.update(mask=[], mask_problem=problem)
        return instance

    def _report(self, usable: int) -> None:
        """Log what was found; raise if that is too much, or nothing is ``usable``."""
        findings = self.findings
        if findings.faults and self.bad_data == 'error':
            raise BadDataError(
                f'{findings.table()}\nRepair these, or leave them out with '
                "bad_data='skip'."
            )
        if not usable:
            raise BadDataError(
                f'None of the {self._listed} images of {self.ann_file} can be used.\n'
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
                return self._run(info, load)
            except BadImageError as error:
                if self.bad_data == 'error':
                    raise BadDataError(
                        f"{error}. Repair it, or skip such images with bad_data='skip'."
                    ) from error
                self.unreadable[file_index] = True
        if not self.test_mode:
            return None  # mmengine takes another one
        return self._run(self.get_data_info(idx), self._load_black)

    def _run(self, info: dict, load_image: Callable) -> Any:
        """Run the pipeline on an image that ``load_image`` loads with its loader."""
        for step in self.pipeline.transforms:
            is_loader = isinstance(step, LoadImageFromFile | RFDETRLoadImage)
            info = load_image(step, info) if is_loader else step(info)
            if info is None:
                return None
        return info

    def _load_black(self, loader: Callable, info: dict) -> dict:
        """Make a black image like the first other one that can be read.

        Raises:
            BadDataError: if no image can be read.
        """
        for other in map(self.get_data_info, range(len(self))):
            if self.unreadable[other['file_index']]:
                continue
            with suppress(BadImageError):
                like = load(loader, other)['img']
                size = info['height'], info['width']
                black = np.zeros((*size, *like.shape[2:]), like.dtype)
                return dict(info, img=black, img_shape=size, ori_shape=size)
        raise BadDataError(
            f'{info["img_path"]} cannot be read, nor any other image of the data set: '
            f'see whether {loader} suits the files.'
        )


def load(loader: Callable, info: dict) -> dict:
    """Load an image with a loader of the pipeline.

    Args:
        loader: ours, or one of mmcv, whose pixels stay what they are.
        info: of the image.

    Raises:
        BadImageError: if the file cannot be read.
    """
    try:
        require_regular(info['img_path'])
        return loader(info)
    except BadImageError:
        raise
    except Exception as error:
        with naming_faults(info['img_path']):
            # Raises BadImageError if the file itself is at fault.
            decode_image(fileio.get(info['img_path'], loader.backend_args))
            if isinstance(error, _DECODER_ERRORS):
                raise BadImageError('unreadable', str(error)) from error
        raise


def _remark_on_pixels(step: Callable) -> None:
    """Log that a loader of colours is not the one of the official package."""
    if type(step) is LoadImageFromFile and step.color_type == 'color':
        print_log(
            'LoadImageFromFile has other pixels than the official package, above all '
            'for turned, CMYK and 16-bit images and files that are cut off: write '
            "dict(type='RFDETRLoadImage') in the pipelines for the same.",
            logger='current',
            level=logging.WARNING,
        )
