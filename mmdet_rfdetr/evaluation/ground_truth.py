"""pycocotools' index of what is to be found."""

import contextlib
import io
from collections.abc import Hashable, Mapping, Sequence

from mmdet.datasets.api_wrappers import COCO


def build_index(document: dict) -> COCO:
    """Make pycocotools' index of a document, with ids that it can count with.

    Args:
        document: lists ``images``, ``annotations`` and ``categories``. An object
            without ``area`` gets that of its box, and one marked ``ignore`` becomes a
            crowd region.
    """
    coco = COCO()
    # pycocotools takes the id 0 for "no object", puts ids into float arrays, and asks
    # for objects marked "ignore", but not for crowds.
    for number, annotation in enumerate(document['annotations'], start=1):
        annotation['id'] = number
        annotation.setdefault('area', annotation['bbox'][2] * annotation['bbox'][3])
        annotation['iscrowd'] = annotation.get('iscrowd') or annotation.get('ignore', 0)
    coco.dataset = dict(document, info={})
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def select(
    coco: COCO,
    sizes: Mapping[Hashable, tuple[int, int]],
    category_ids: Sequence[Hashable | None],
) -> COCO:
    """Take the images that were evaluated, and the categories that are classes.

    Args:
        coco: the index of a whole file; stays as it is.
        sizes: (height, width) by image id, in the order in which images are counted
            from 0. Masks are drawn at these and not at what the file says, because
            detections have the size of the image.
        category_ids: of each label, which is the id in the result; None for a class
            without objects.
    """
    images = {key: rank for rank, key in enumerate(sizes)}
    labels = {key: label for label, key in enumerate(category_ids) if key is not None}
    return build_index(
        dict(
            images=[
                dict(coco.imgs[key], id=images[key], height=height, width=width)
                for key, (height, width) in sizes.items()
            ],
            categories=[dict(id=label) for label in range(len(category_ids))],
            annotations=[
                dict(
                    annotation,
                    image_id=images[annotation['image_id']],
                    category_id=labels[annotation['category_id']],
                )
                for annotation in coco.anns.values()
                if annotation['image_id'] in images
                and annotation['category_id'] in labels
            ],
        )
    )
