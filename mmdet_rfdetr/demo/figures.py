"""Pictures of stick figures with five points each, drawn like those of shapes.

Figures are seen from the front, so that their left is on the right of the picture, and
each hand and foot has a colour of its own, reddish on the left. A mirror image of one
would be a figure that there is not.
"""

import numpy as np

from .drawing import background, blend, draw_line, overlap

CLASSES = ('figure',)
POINTS = ('head', 'left_hand', 'right_hand', 'left_foot', 'right_foot')

_MAX_FIGURES = 2
_MIN_HEIGHT, _MAX_HEIGHT = 0.45, 0.80  # about, of the side of the picture
_MAX_OVERLAP = 0.15  # of the area of the smaller box
_MISSING, _COVERED = 0.08, 0.08  # of the hands and feet
_TRUNK, _HEAD, _ARM, _LEG = 0.36, 0.09, 0.36, 0.42  # parts of the height
_HALF_WIDTH, _END, _COVER = 0.03, 0.07, 0.10
_LEAN = 0.3  # radians to either side
# Head and trunk, the hands and the feet: BGR. The left limbs are reddish.
_COLOURS = (40, 220, 225), (30, 30, 225), (225, 60, 30), (200, 40, 225), (225, 220, 40)
_SHADE = 25  # grey levels that a colour may differ by
_COVER_COLOUR = (150, 150, 150)


def draw_figures(seed: int, split: int, index: int, side: int):
    """Draw one picture.

    Args:
        seed: Seed of the data set.
        split: Number of the split; other splits hold other pictures.
        index: Number of the picture in its split.
        side: Height and width in pixels.

    Returns:
        The picture, (side, side, 3) uint8 in BGR order; the boxes, (T, 4) float xywh in
        pixels; the labels, (T,) int, all 0; the points, (T, 5, 3) float: x, y in pixels
        and 2 for one that is seen, 1 for one behind a disc, 0 with x = y = 0 for one
        that the figure lacks. T is 1 or 2.
    """
    random = np.random.RandomState([seed, split, index])
    canvas = background(random, side)
    for _ in range(random.randint(1, 4)):
        draw_line(random, canvas)
    boxes, points = [], []
    count = random.randint(1, _MAX_FIGURES + 1)
    for _ in range(count * 10):
        height = random.uniform(_MIN_HEIGHT, _MAX_HEIGHT) * side
        joints, seen = _pose(random)
        box = _extent(joints * height, seen, height)
        place = random.uniform(0, 1, size=2) * (side - box[2:]) - box[:2]
        box[:2] += place
        if all(overlap(box, other) <= _MAX_OVERLAP for other in boxes):
            joints = joints * height + place
            _draw_figure(random, canvas, joints, seen, height)
            boxes.append(np.round(box, 2))
            ends = np.column_stack((np.round(joints[2:], 2), seen))
            points.append(np.where(seen[:, None] > 0, ends, 0))
        if len(boxes) == count:
            break
    noise = np.frombuffer(random.bytes(canvas.size), np.uint8) % 5
    canvas += 3 * noise.reshape(canvas.shape) - np.float32(6)
    picture = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    labels = np.zeros(len(boxes), np.int64)
    return picture, np.array(boxes), labels, np.array(points)


def _pose(random):
    """Joints (7, 2) of a figure of height 1 and its points' visibility (5,).

    The joints are neck and hip, then the points.
    """
    lean = random.uniform(-_LEAN, _LEAN)
    arms = random.uniform(0.35, 2.5, size=2)  # from hanging down to raised
    legs = random.uniform(0.12, 0.8, size=2)

    seen = np.full(5, 2)
    chances = random.uniform(0, 1, size=4)
    seen[1:][chances < _MISSING + _COVERED] = 1
    seen[1:][chances < _MISSING] = 0
    neck, hip = np.zeros(2), _towards(0.0, _TRUNK)
    ends = [_towards(np.pi, 1.2 * _HEAD)]
    ends += [_towards(angle, _ARM) for angle in arms * [1, -1]]
    ends += [hip + _towards(angle, _LEG) for angle in legs * [1, -1]]
    joints = np.stack([neck, hip, *ends])
    turn = np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]])
    return joints @ turn, seen


def _towards(angle, length):
    """A step of ``length``, at ``angle`` from straight down to the right."""
    return length * np.array([np.sin(angle), np.cos(angle)])


def _extent(joints, seen, height):
    """Box xywh around what is drawn of a figure."""
    radii = height * np.array([_HALF_WIDTH] * 2 + [_HEAD] + [_END] * 4)
    radii[2:][seen == 1] = height * _COVER
    drawn = np.concatenate(([True, True], seen > 0))
    low = (joints - radii[:, None])[drawn].min(axis=0)
    high = (joints + radii[:, None])[drawn].max(axis=0)
    return np.concatenate((low, high - low))


def _draw_figure(random, canvas, joints, seen, height):
    """Draw the limbs, the head, and discs on the points that are covered."""
    trunk, *colours = (
        np.add(colour, random.randint(-_SHADE, _SHADE + 1, size=3))
        for colour in _COLOURS
    )
    neck, hip, head, *ends = joints
    thickness = height * _HALF_WIDTH
    _draw_limb(canvas, neck, hip, thickness, trunk)
    starts = neck, neck, hip, hip
    for start, end, colour, state in zip(starts, ends, colours, seen[1:], strict=True):
        if state:
            _draw_limb(canvas, start, end, thickness, colour)
            _draw_limb(canvas, end, end, height * _END, colour)
    _draw_limb(canvas, head, head, height * _HEAD, trunk)
    for end, state in zip(ends, seen[1:], strict=True):
        if state == 1:
            _draw_limb(canvas, end, end, height * _COVER, np.array(_COVER_COLOUR))


def _draw_limb(canvas, start, end, half_width, colour):
    """Paint all within ``half_width`` pixels of a line; of a point, a disc."""
    # Only the pixels near it.
    low = np.floor(np.minimum(start, end) - half_width - 1).clip(min=0).astype(int)
    high = np.ceil(np.maximum(start, end) + half_width + 1).astype(int)
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    rows, columns = (np.arange(size) + 0.5 for size in patch.shape[:2])
    x, y = columns[None, :] + low[0] - start[0], rows[:, None] + low[1] - start[1]
    dx, dy = end - start
    along = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    distance = np.hypot(x - along * dx, y - along * dy)
    blend(patch, np.clip(half_width + 0.5 - distance, 0, 1), colour)
