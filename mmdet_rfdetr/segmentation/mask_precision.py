"""Masks in COCO's metric."""

from collections.abc import Hashable, Mapping, Sequence

from mmdet.datasets.api_wrappers import COCO

from ..errors import BadDataError, SettingError
from ..evaluation.predictions import KINDS, Kind
from .mask_rules import mask_problem


def mask_entries(results: Sequence[dict]) -> list[dict]:
    """Gather the masks that ``CocoMetric.process`` took from each image.

    Args:
        results: dicts with ``masks``, ``labels``, and ``mask_scores`` or ``scores``.

    Returns:
        pycocotools' result list of run-length codes. It has no boxes, whose area
        pycocotools would take for that of the masks.

    Raises:
        SettingError: if there are no masks.
    """
    if 'masks' not in results[0]:
        raise SettingError(
            "metric 'segm' needs masks, and the model gives none: evaluate with "
            "metric='bbox' alone."
        )
    return [
        dict(image_id=image, category_id=label, score=score, segmentation=code)
        for image, result in enumerate(results)
        for label, score, code in zip(
            result['labels'].tolist(),
            result.get('mask_scores', result['scores']).tolist(),
            # Masks that decode where they are iterated have their codes beside.
            getattr(result['masks'], 'codes', result['masks']),
            strict=True,
        )
    ]


def require_masks(index: COCO, sizes: Mapping[Hashable, tuple[int, int]]) -> None:
    """Stop if an object has no mask that can be drawn.

    pycocotools reads beyond the end of run lengths that do not fit their image.

    Args:
        index: the ground truth.
        sizes: (height, width) of images by id, where they are known better than by
            what the annotations state.

    Raises:
        BadDataError: names the first of these objects.
    """
    found = []
    for annotation in index.anns.values():
        image = index.imgs[annotation['image_id']]
        stated = image.get('height'), image.get('width')
        size = sizes.get(image['id'], stated)
        problem = mask_problem(annotation.get('segmentation'), *size)
        if problem is not None:
            found.append((annotation, problem))
    if found:
        annotation, problem = found[0]
        raise BadDataError(
            f"metric 'segm' needs a mask for every object, and {len(found)} have "
            f'none that can be drawn; the first is annotation {annotation["id"]} '
            f'of image {annotation["image_id"]}, which has {problem}: remove these '
            "objects, or evaluate with metric='bbox' alone"
        )


KINDS['segm'] = Kind('segm', mask_entries, require_masks)
