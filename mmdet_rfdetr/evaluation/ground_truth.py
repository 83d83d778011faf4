"""pycocotools' index of what is to be found."""

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Hashable, Sequence

from mmdet.datasets.api_wrappers import COCO
from mmengine.logging import print_log

from ..class_names import show_classes


def build_index(document: dict) -> COCO:
    """Make pycocotools' index of a document, with ids that it can count with.

    Args:
        document: see :func:`~mmdet_rfdetr.faults.annotations.clean_annotations`.
    """
    coco = COCO()
    coco.dataset = dict(
        document,
        info={},  # pycocotools wants it
        # pycocotools takes the id 0 for "no object" and puts ids into float arrays. It
        # asks for objects marked "ignore", and not for crowds.
        annotations=[
            dict(
                annotation,
                id=number,
                iscrowd=annotation['iscrowd'] or annotation.get('ignore', 0),
            )
            for number, annotation in enumerate(document['annotations'], start=1)
        ],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def select(
    coco: COCO,
    image_ids: Sequence[Hashable],
    category_ids: Sequence[Hashable],
    num_categories: int,
    sizes: dict[Hashable, tuple[int, int]],
) -> COCO:
    """Take some images and categories, counted from 0 in the order given.

    Args:
        coco: the index of a whole file; stays as it is.
        image_ids: images to take.
        category_ids: categories to take.
        num_categories: at least as many; those beyond have no objects.
        sizes: (height, width) of the images. Masks are drawn at them and not at what
            the file says, because detections have the size of the image.
    """
    images = {key: rank for rank, key in enumerate(image_ids)}
    categories = {key: rank for rank, key in enumerate(category_ids)}
    document = dict(
        images=[
            dict(coco.imgs[key], id=rank, height=sizes[key][0], width=sizes[key][1])
            for key, rank in images.items()
        ],
        categories=[dict(id=rank, name=str(rank)) for rank in range(num_categories)],
        annotations=[
            dict(
                annotation,
                image_id=images[annotation['image_id']],
                category_id=categories[annotation['category_id']],
            )
            for annotation in coco.anns.values()
            if annotation['image_id'] in images
            and annotation['category_id'] in categories
        ],
    )
    return build_index(document)


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
