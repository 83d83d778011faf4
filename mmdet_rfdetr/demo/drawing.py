"""Pictures of simple shapes that the package draws itself.

Everything comes from ``numpy.random.RandomState``, whose streams are frozen by
numpy's compatibility promise, and from plain arithmetic: the same seed gives the
same pictures on another machine. Picture ``i`` of a split does not depend on how
many pictures are drawn.
"""

import numpy as np

CLASSES = ('ellipse', 'rectangle', 'triangle', 'star')

_MIN_SIDE, _MAX_SIDE = 0.09, 0.40  # of the side of the picture
_MAX_ASPECT = 2.0
_MAX_OVERLAP = 0.30  # of the area of the smaller box
_MAX_SHAPES = 6
_MIN_CONTRAST = 70  # grey levels, in the channel that differs most
_TINT = 30  # grey levels that a muted colour may leave grey by
_SUBSAMPLES = 3  # coverage of an edge pixel is counted on 3 x 3 points


def draw_picture(seed: int, split: int, index: int, side: int):
    """Draw one picture.

    Args:
        seed: Seed of the data set.
        split: Number of the split; other splits hold other pictures.
        index: Number of the picture in its split.
        side: Height and width in pixels.

    Returns:
        The picture, (side, side, 3) uint8 in BGR order; the boxes, (T, 4) float
        xywh in pixels; the labels, (T,) int, into ``CLASSES``. T is 1 to 6.
    """
    random = np.random.RandomState([seed, split, index])
    canvas = background(random, side)
    for _ in range(random.randint(1, 5)):
        draw_line(random, canvas)
    boxes = _place_boxes(random, side, count=random.randint(1, _MAX_SHAPES + 1))
    labels = random.randint(len(CLASSES), size=len(boxes))
    for box, label in zip(boxes, labels, strict=True):
        _draw_shape(random, canvas, box, CLASSES[label])
    noise = np.frombuffer(random.bytes(canvas.size), np.uint8) % 5
    canvas += 3 * noise.reshape(canvas.shape) - np.float32(6)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), boxes, labels


def background(random, side):
    """A gradient between two muted colours in a random direction."""
    first, second = muted_colour(random), muted_colour(random)
    angle = random.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    ramp = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
    ramp = np.clip(ramp + 0.5, 0, 1)[..., None]
    return np.float32(first) + np.float32(second - first) * ramp


def draw_line(random, canvas):
    """A distractor: a straight line across the picture, one to three pixels wide."""
    side = len(canvas)
    x, y = random.uniform(0, side, size=2)
    angle = random.uniform(0, np.pi)
    half_width = random.uniform(0.4, 1.5)
    colour = muted_colour(random)
    grid = np.arange(side, dtype=np.float32) + 0.5
    distance = np.abs(
        (grid[None, :] - x) * np.sin(angle) - (grid[:, None] - y) * np.cos(angle)
    )
    blend(canvas, np.clip(half_width + 0.5 - distance, 0, 1), colour)


def _place_boxes(random, side, count):
    """Boxes of random size and aspect that overlap little; at least one."""
    boxes = []
    for _ in range(count * 10):
        # Uniform in the square, so that most shapes are more than a few pixels.
        squares = random.uniform(_MIN_SIDE**2, _MAX_SIDE**2, size=2)
        width, height = np.sqrt(squares) * side
        x, y = random.uniform(0, 1, size=2) * (side - width, side - height)
        box = np.round([x, y, width, height], 2)
        aspect = max(width, height) / min(width, height)
        if aspect <= _MAX_ASPECT and all(
            overlap(box, other) <= _MAX_OVERLAP for other in boxes
        ):
            boxes.append(box)
        if len(boxes) == count:
            break
    return np.array(boxes).reshape(-1, 4)


def overlap(a, b):
    """Common area of two xywh boxes over the area of the smaller one."""
    common = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    return np.prod(np.maximum(common, 0)) / min(np.prod(a[2:]), np.prod(b[2:]))


def _draw_shape(random, canvas, box, kind):
    """Fill ``kind`` to the borders of ``box`` in a colour that can be seen there."""
    x, y, width, height = box
    left, top = int(x), int(y)
    right, bottom = int(np.ceil(x + width)), int(np.ceil(y + height))
    step = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES
    columns = (np.arange(left, right)[:, None] + step).ravel()
    rows = (np.arange(top, bottom)[:, None] + step).ravel()
    u = ((columns - x) / width * 2 - 1)[None, :]
    v = ((rows - y) / height * 2 - 1)[:, None]
    inside = _INSIDE[kind](u, v) & (np.abs(u) <= 1) & (np.abs(v) <= 1)
    coverage = inside.reshape(bottom - top, _SUBSAMPLES, right - left, _SUBSAMPLES)
    patch = canvas[top:bottom, left:right]
    blend(patch, coverage.mean(axis=(1, 3)), _visible_colour(random, patch))


def muted_colour(random):
    """A grey with a tint, for what is not an object."""
    return random.randint(40, 216) + random.randint(-_TINT, _TINT + 1, size=3)


def _visible_colour(random, patch):
    """A strong colour that differs clearly from the mean of what lies under it."""
    under = patch.mean(axis=(0, 1))
    while True:
        strong = [random.randint(190, 256), random.randint(66), random.randint(256)]
        colour = random.permutation(strong)
        if np.abs(colour - under).max() >= _MIN_CONTRAST:
            return colour


def blend(canvas, coverage, colour):
    """Paint ``colour`` over ``canvas`` in place where ``coverage`` is 1."""
    canvas += coverage.astype(np.float32)[..., None] * (np.float32(colour) - canvas)


def _star_inside(u, v):
    """Five points; a point lies inside if at most one of five edges cuts it off."""
    cut = sum(
        (normal_x * u + normal_y * v > offset).astype(np.int8)
        for normal_x, normal_y, offset in _STAR_EDGES
    )
    return cut <= 1


def _star_edges():
    """The lines of a pentagram that fills the square [-1, 1]: x, y, offset."""
    angle = 2 * np.pi * np.arange(5) / 5 - np.pi / 2
    tips = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    low, high = tips.min(axis=0), tips.max(axis=0)
    tips = (tips - low) / (high - low) * 2 - 1
    centre = tips.mean(axis=0)
    edges = []
    for start, end in zip(tips, np.roll(tips, -2, axis=0), strict=True):
        normal = np.array([end[1] - start[1], start[0] - end[0]])
        if normal @ (centre - start) > 0:
            normal = -normal
        edges.append((*normal, normal @ start))
    return edges


_STAR_EDGES = _star_edges()
_INSIDE = {
    'ellipse': lambda u, v: u**2 + v**2 <= 1,
    'rectangle': lambda u, v: np.ones(np.broadcast(u, v).shape, dtype=bool),
    'triangle': lambda u, v: np.abs(u) <= (v + 1) / 2,
    'star': _star_inside,
}
