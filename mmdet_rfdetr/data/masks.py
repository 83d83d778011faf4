"""Masks of annotations as they really are."""

import numpy as np
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log


def mask_problem(segmentation: object, height: int, width: int) -> str | None:
    """Say what is wrong with the mask of an object.

    Polygons may have several parts and leave the image; run lengths may be
    compressed or not.

    Args:
        segmentation: what COCO's key of this name holds, or None.
        height: of the image.
        width: of the image.

    Returns:
        The problem, or None if the mask can be drawn.
    """
    if not segmentation:
        return 'no mask'
    if isinstance(segmentation, dict):
        return _run_length_problem(segmentation, height, width)
    if not drawable_parts(segmentation):
        return 'no polygon of three points or more'
    return None


def _run_length_problem(mask: dict, height: int, width: int) -> str | None:
    size, counts = mask.get('size'), mask.get('counts')
    if size is None or counts is None:
        return "a run-length mask without 'counts' or 'size'"
    if not isinstance(size, (list, tuple)) or tuple(size) != (height, width):
        return (
            f'a run-length mask of height and width {size} in an image of '
            f'{[height, width]}'
        )
    runs = decode_runs(counts) if isinstance(counts, (str, bytes)) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) for run in runs):
        return 'damaged run lengths'
    if any(run < 0 for run in runs):
        return f'a negative run length, {min(runs)}'
    if sum(runs) != height * width:
        return f'run lengths that sum to {sum(runs)}, not {height * width}'
    return None


def decode_runs(text: str | bytes) -> list[int] | None:
    """Read COCO's compressed run lengths; pycocotools reads damaged ones unchecked.

    A number is written in pieces of five bits, the lowest first, as the characters
    from "0" on; a sixth bit says that more follow, and the highest bit of the last
    piece is the sign. From the fourth number on it is the difference to the number
    two places before.

    Args:
        text: ``counts`` of a compressed mask.

    Returns:
        The run lengths, or None if the text is damaged.
    """
    runs: list[int] = []
    value = shift = 0
    for code in text if isinstance(text, bytes) else text.encode():
        piece = code - ord('0')
        if not 0 <= piece < 64:
            return None
        value |= (piece & 0x1F) << shift
        shift += 5
        if not piece & 0x20:
            if piece & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return None if shift else runs


def drawable_parts(polygons: list[list[float]]) -> list[list[float]]:
    """Leave out parts of a mask that are no polygons, as mmdet does.

    Args:
        polygons: x1, y1, x2, y2 and so on, of each part.
    """
    return [part for part in polygons if len(part) >= 6 and len(part) % 2 == 0]


@TRANSFORMS.register_module()
class RFDETRLoadAnnotations(LoadAnnotations):
    """Load boxes, labels and masks, and leave out objects without a usable mask.

    mmdet leaves out objects whose polygons are broken; here the same goes for
    objects that have no mask at all, and for run lengths of another image size. The
    first one that a process meets is logged. Arguments, and keys read and written,
    are those of mmdet's ``LoadAnnotations``.
    """

    _warned = False

    def _load_masks(self, results: dict) -> None:
        """Load the masks as mmdet does.

        Raises:
            ValueError: if the image was not loaded before.
        """
        if 'ori_shape' not in results:
            raise ValueError(
                'masks are loaded after their image: begin the pipeline with '
                'LoadImageFromFile (RFDETRLoadJittered is for training without masks)'
            )
        super()._load_masks(results)

    def _process_masks(self, results: dict) -> list:
        """Masks of all objects; those left out get ``ignore_flag`` and a dot.

        Raises:
            ValueError: if the image was loaded at another size than its masks have.
        """
        height, width = results['ori_shape']
        stated = (results.get('height', height), results.get('width', width))
        if stated != (height, width):
            raise ValueError(
                f'{results.get("img_path")} was loaded as {height} x {width} and its '
                f'masks are of {stated[0]} x {stated[1]}: load images at their full '
                'size to train on masks, that is RFDETRLoadImage without image_size'
            )
        for instance in results.get('instances', []):
            problem = mask_problem(instance.get('mask'), height, width)
            if problem is not None:
                self._warn(results.get('img_path'), instance, problem)
                instance['mask'] = [np.zeros(6)]
                instance['ignore_flag'] = 1
        return super()._process_masks(results)

    def _warn(self, image: str | None, instance: dict, problem: str) -> None:
        # Nothing is learned from crowds anyway.
        if not self._warned and not instance['ignore_flag']:
            self._warned = True
            print_log(
                f'{image}: the object in the box {instance["bbox"]} has {problem}; it '
                'is left out of training, and so are all others without a usable mask',
                logger='current',
                level=30,
            )
