"""Pictures of detections beside the ground truth."""

import colorsys
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from mmdet.structures.mask import PolygonMasks
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_MARGIN, _HEADING = 8, 22  # pixels
_BACKGROUND, _INK = (255, 255, 255), (40, 40, 40)
_OPACITY = 0.5


def draw_boxes(
    image: np.ndarray,
    instances: InstanceData,
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    side: int = 320,
    draw_points: Callable | None = None,
) -> Image.Image:
    """Draw masks, boxes and names on an image, resized so that they can be read.

    Args:
        image: (H, W, 3) uint8 in BGR order.
        instances: what to draw: ``bboxes`` (T, 4) in pixels of the image, ``labels``,
            ``masks`` of any kind and size of the whole image, and ``scores``, of which
            the best lie on top; or nothing at all.
        classes: names by label.
        palette: RGB colours by label.
        side: longer side of the result in pixels.
        draw_points: draws the points of instances, of which there are ``keypoints``:
            called with the picture as an array, the instances and what their places
            are to be multiplied by, it returns another array.

    Returns:
        The picture, RGB.
    """
    scale = side / max(image.shape[:2])
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).resize(size)
    if 'scores' in instances:
        instances = instances[instances.scores.argsort(stable=True)]
    for index, mask in enumerate(_bitmaps(instances)):
        colour = tuple(palette[instances.labels[index]])
        stencil = Image.fromarray(np.uint8(255) * mask.astype(np.uint8)).resize(size)
        tint = stencil.point(lambda value: round(_OPACITY * value))
        picture.paste(colour, mask=tint)
        # The outline tells objects of one class apart that touch.
        picture.paste(colour, mask=stencil.filter(ImageFilter.FIND_EDGES))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(11)
    for index in range(len(instances)):
        box, label = instances.bboxes[index].float().numpy(), instances.labels[index]
        colour = tuple(palette[label])
        # Boxes may be clipped to nothing; Pillow insists on the order of corners.
        x1, y1 = np.minimum(box[:2], box[2:]) * scale
        x2, y2 = np.maximum(box[:2], box[2:]) * scale
        # A thin contrast around it, since an image can have the same colour.
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_readable_on(colour))
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=2)
        text = classes[label]
        if 'scores' in instances:
            text += f' {instances.scores[index]:.2f}'
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        # Above the box where there is room, and never over the right border.
        x = max(0, min(x1, size[0] - right - 2))
        y = max(0, y1 - bottom - 1)
        draw.rectangle((x, y, x + right + 2, y + bottom + 1), fill=colour)
        draw.text((x + 1, y), text, fill=_readable_on(colour), font=font)
    if draw_points and 'keypoints' in instances:
        return Image.fromarray(draw_points(np.array(picture), instances, scale))
    return picture


def _bitmaps(instances: InstanceData) -> Iterable[np.ndarray]:
    """Masks one by one: encoded ones are decoded only as they are drawn."""
    masks = instances.get('masks', ())
    if isinstance(masks, torch.Tensor):
        return masks.numpy()
    return masks.to_bitmap() if isinstance(masks, PolygonMasks) else masks


def _readable_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever differs more (ITU-R BT.601 luma)."""
    luma = np.dot(colour, (0.299, 0.587, 0.114))
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def class_colours(palette: object, count: int) -> list[tuple[int, int, int]]:
    """Colours for all classes: the data set's own if it has enough, else a wheel.

    Args:
        palette: of the metainfo; RGB tuples, or something else that is not used.
        count: number of classes.
    """
    if isinstance(palette, (list, tuple)) and len(palette) >= count:
        return [tuple(colour) for colour in palette]
    wheel = [colorsys.hsv_to_rgb(index / count, 0.8, 0.9) for index in range(count)]
    return [tuple(round(255 * part) for part in colour) for colour in wheel]


def picture_grid(
    rows: Sequence[Sequence[Image.Image]], headings: Sequence[str]
) -> Image.Image:
    """Lay out pictures in rows and columns.

    Args:
        rows: of pictures of any size; the last row may be shorter.
        headings: one for each column.

    Returns:
        One picture.
    """
    cell_width = max(picture.width for row in rows for picture in row) + _MARGIN
    heights = [max(picture.height for picture in row) + _MARGIN for row in rows]
    size = len(headings) * cell_width + _MARGIN, _HEADING + sum(heights) + _MARGIN
    grid = Image.new('RGB', size, _BACKGROUND)
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(14)
    for column, heading in enumerate(headings):
        draw.text((_MARGIN + column * cell_width, 3), heading, fill=_INK, font=font)
    y = _HEADING
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            grid.paste(picture, (_MARGIN + column * cell_width, y))
        y += height
    return grid
