"""Which detections of two tiles are one object, and which are not."""

import numpy as np
import pytest
from rfdetr_runtime import Detector, Found
from rfdetr_runtime.tiles import grid, join_views, same_objects

from tests.test_runtime.squares import NAMES, Squares, draw

SIZE = (100, 180)
TILES = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])  # the strip is x = 80 to 100


def found(*rows, masks=None):
    """Detections of rows (score, label, x, y, right, bottom)."""
    rows = np.array(rows, np.float32).reshape(-1, 6)
    return Found(rows[:, 2:], rows[:, 0], rows[:, 1].astype(np.int64), masks)


def joined(left, right, regions=TILES, size=SIZE, **kwargs):
    views = [found(*left), found(*right)]
    result = join_views(views, regions, size, **kwargs)
    return [
        (round(float(score), 3), int(label), *box.tolist())
        for score, label, box in zip(
            result.scores, result.labels, result.boxes, strict=True
        )
    ]


def test_an_object_that_both_borders_cut_is_joined():
    left, right = (0.8, 0, 40, 20, 99, 60), (0.9, 0, 80, 21, 150, 59)
    ((score, label, x, y, end, bottom),) = joined([left], [right])
    areas = 59 * 40, 70 * 38
    assert score == round((0.8 * areas[0] + 0.9 * areas[1]) / sum(areas), 3)
    assert label == 0
    assert (x, end) == (40, 150)  # each side by the tile that has seen it
    assert 20 < y < 21 and 59 < bottom < 60  # both have seen these


def test_an_object_that_one_border_cuts_is_the_whole_one():
    # Also its score: a part may look like anything.
    whole, part = (0.7, 0, 50, 20, 96, 60), (0.9, 0, 80, 20, 96, 60)
    assert joined([whole], [part]) == [(0.7, 0, 50, 20, 96, 60)]


def test_an_object_within_the_strip_is_one():
    assert joined([(0.7, 0, 84, 20, 96, 60)], [(0.5, 0, 84, 20, 96, 60)]) == [
        (0.6, 0, 84, 20, 96, 60)
    ]


def test_who_sees_it_at_a_border_knows_less_of_an_object():
    # 3 pixels from the left tile's border, 17 from that of the right one.
    at_border, clear = (0.9, 0, 84, 20, 97, 60), (0.5, 0, 86, 20, 97, 60)
    ((score, _, x, *_),) = joined([at_border], [clear])
    trusts = 0.3, 0.6  # 3 and 6 pixels, of a tenth of the side
    assert score == round((0.9 * 0.3 + 0.5 * 0.6) / 0.9, 3)
    weights = np.multiply(trusts, (0.9, 0.5))
    assert x == pytest.approx(np.average((84, 86), weights=weights))
    # From a tenth of the side on, all are alike.
    far = joined(
        [(0.9, 0, 30, 20, 60, 50)],
        [(0.5, 0, 32, 20, 60, 50)],
        regions=np.array([[0, 0, 100, 100], [10, 0, 110, 100]]),
    )
    assert far[0][0] == 0.7


def test_a_part_that_another_tile_does_not_confirm_counts_half():
    # Both are cut off at x = 100; the right tile, from 80 on, shows the second whole.
    unseen, seen = (0.8, 0, 70, 20, 100, 40), (0.7, 0, 88, 60, 100, 90)
    assert joined([unseen, seen], []) == [unseen, (0.35, *seen[1:])]


def test_a_neighbour_is_kept():
    left, right = (0.8, 0, 40, 20, 88, 60), (0.9, 0, 89, 20, 150, 60)
    assert len(joined([left], [right])) == 2
    # Also where they touch in the strip, and where one lies above the other.
    assert len(joined([(0.8, 0, 40, 20, 100, 39)], [(0.9, 0, 80, 40, 150, 60)])) == 2


def test_another_class_is_kept():
    left, right = (0.8, 0, 84, 20, 96, 60), (0.9, 1, 84, 20, 96, 60)
    assert len(joined([left], [right])) == 2


@pytest.mark.parametrize(
    'small', [(85, 40, 95, 50), (80, 40, 95, 50), (81, 30, 99, 50), (90, 25, 100, 60)]
)
def test_a_small_object_in_a_large_one_is_kept(small):
    large = (0.9, 0, 20, 5, 100, 95)
    assert len(joined([large], [(0.6, 0, *small)])) == 2
    both = joined(
        [large, (0.5, 0, *small)], [(0.8, 0, 80, 5, 160, 95), (0.6, 0, *small)]
    )
    assert len(both) == 2 and 0.8 < both[0][0] < 0.9
    assert both[1][2:] == small
    assert both[0][2:] == (20, 5, 160, 95)


def test_a_chain_does_not_grow():
    # Each resembles the next in what two tiles share, the first not the last.
    regions = np.array([[0, 0, 100, 100], [10, 0, 110, 100], [20, 0, 120, 100]])
    views = [
        found((0.9, 0, 30, 30, 50, 50)),
        found((0.8, 0, 36, 30, 56, 50)),
        found((0.7, 0, 42, 30, 62, 50)),
    ]
    result = join_views(views, regions, (100, 120))
    assert len(result) == 2
    widths = result.boxes[:, 2] - result.boxes[:, 0]
    assert (widths <= 21).all()


def test_an_object_across_three_tiles_is_one():
    regions = np.array([[0, 0, 100, 100], [80, 0, 180, 100], [160, 0, 260, 100]])
    views = [
        found((0.6, 0, 30, 20, 100, 60)),
        found((0.9, 0, 80, 20, 180, 60)),
        found((0.7, 0, 160, 20, 220, 60)),
    ]
    (box,) = join_views(views, regions, (100, 260)).boxes
    assert box.tolist() == [30, 20, 220, 60]


def test_detections_of_one_tile_are_never_merged():
    random = np.random.default_rng(0)
    views = []
    for x, _, right, _ in TILES:
        corners = random.uniform((x, 0), (right - 20, 60), (200, 2))
        boxes = np.c_[corners, corners + random.uniform(5, 30, (200, 2))]
        scores = np.sort(random.uniform(0, 1, 200))[::-1]
        views.append(found(*np.c_[scores, random.integers(0, 2, 200), boxes]))
    boxes, labels = (
        np.concatenate([getattr(view, name) for view in views])
        for name in ('boxes', 'labels')
    )
    of_view = np.repeat([0, 1], 200)
    groups = same_objects(boxes, labels, of_view, TILES)
    assert sorted(np.concatenate(groups)) == list(range(400))
    sizes = [len(group) for group in groups]
    assert set(sizes) == {1, 2} and len(join_views(views, TILES, SIZE)) == len(sizes)
    assert all(len(set(of_view[group])) == len(group) for group in groups)
    for view in views:
        same = join_views([view, found()], TILES, SIZE)
        assert len(same) == 200
        assert np.array_equal(np.sort(same.boxes, 0), np.sort(view.boxes, 0))


def test_the_mirror_image_is_a_tile_of_all():
    regions = np.array([[0, 0, 180, 100]] * 2)
    views = [(0.8, 0, 10, 10, 50, 50)], [(0.4, 0, 10, 10, 56, 50)]
    ((score, _, *box),) = joined(*views, regions=regions, missed=0.5)
    assert score == 0.6 and box == [10, 10, 52, 50]
    alone = joined([(0.8, 0, 10, 10, 50, 50)], [], regions=regions, missed=0.5)
    assert alone == [(0.6, 0, 10, 10, 50, 50)]


@pytest.mark.parametrize(
    ('size', 'tile', 'overlap'),
    [((100, 180), 100, 0.2), ((1000, 777), 128, 0.0), ((640, 2000), 640, 0.5)],
)
def test_tiles_cover_all_and_overlap(size, tile, overlap):
    regions = grid(size, tile, overlap)
    seen = np.zeros(size, int)
    for x, y, right, bottom in regions:
        assert (bottom - y, right - x) == (min(tile, size[0]), min(tile, size[1]))
        seen[y:bottom, x:right] += 1
    assert seen.min() == 1
    for axis in (0, 1):
        starts = np.unique(regions[:, axis])
        assert (np.diff(starts) <= max(1, np.ceil(tile * (1 - overlap)))).all()


def test_a_picture_that_fits_is_one_tile():
    assert grid((100, 80), 100, 0.2).tolist() == [[0, 0, 80, 100]]
    assert len(grid((101, 80), 100, 0.2)) == 2


@pytest.mark.parametrize('overlap', [0.2, 0.4])
def test_what_is_seen_in_tiles_of_a_mosaic_comes_out_once(overlap):
    # As large as those of the demo, each in tiles as a perfect detector sees it.
    random = np.random.default_rng(0)
    cells = np.stack(np.meshgrid(range(0, 512, 64), range(0, 512, 64)), -1)
    sides = random.uniform(12, 51, (64, 2))
    corners = cells.reshape(-1, 2) + random.uniform(0, 64 - sides)
    truth = np.c_[corners, corners + sides].astype(np.float32)
    labels = random.integers(0, 4, 64)
    regions, views = grid((512, 512), 128, overlap), []
    for region in regions:
        low = np.maximum(truth[:, :2], region[:2])
        high = np.minimum(truth[:, 2:], region[2:])
        seen = (high - low > 2).all(axis=1)
        share = np.prod(high - low, axis=1) / np.prod(sides, axis=1)
        views.append(found(*np.c_[share, labels, low, high][seen]))
    result = join_views(views, regions, (512, 512))
    assert len(result) == 64
    distances = np.abs(result.boxes[:, None] - truth).max(axis=2)
    nearest = distances.argmin(axis=1)
    assert sorted(nearest) == list(range(64)) and distances.min(axis=1).max() <= 2.6
    assert np.array_equal(result.labels, labels[nearest])


OBJECTS = [
    ('red', 60, 20, 130, 70),  # cut off by both
    ('red', 132, 20, 170, 70),  # its neighbour
    ('green', 84, 75, 96, 90),  # within the strip
    ('blue', 5, 5, 30, 30),
    ('blue', 150, 80, 178, 99),
]


@pytest.mark.parametrize('whole', [False, True])
@pytest.mark.parametrize('batch', [1, 3])
def test_a_detector_finds_in_tiles_what_it_finds_in_the_whole(whole, batch):
    image = draw(SIZE, *OBJECTS)
    plain = Detector(Squares(), threshold=0.1)(image)
    model = Squares()
    tiled = Detector(model, threshold=0.1, tile=100, whole=whole, batch=batch)(image)
    assert sum(model.batches) == 2 + whole
    assert max(model.batches) == min(batch, 2 + whole)
    order = [np.lexsort(found.boxes.T) for found in (plain, tiled)]
    assert len(plain) == len(OBJECTS)
    assert np.array_equal(plain.boxes[order[0]], tiled.boxes[order[1]])
    assert np.array_equal(plain.labels[order[0]], tiled.labels[order[1]])
    assert np.array_equal(plain.masks[order[0]], tiled.masks[order[1]])


def test_what_joining_lowers_has_to_pass_the_threshold():
    class OneTile(Squares):  # the second tile finds nothing
        def detect(self, inputs, *args):
            found = super().detect(inputs, *args)
            return found if len(self.batches) == 1 else [found[0].take([])]

    # 0.58, and cut off: the other tile shows the place whole, so that half is left.
    image = draw(SIZE, ('red', 88, 20, 100, 60))
    for threshold, count in ((0.2, 1), (0.4, 0), (0, 1)):
        detect = Detector(OneTile(), threshold=threshold, tile=100)
        assert len(detect(image)) == count


def test_one_tile_is_the_plain_picture():
    image = draw((90, 100), ('red', 10, 20, 40, 60), ('red', 39, 20, 80, 61))
    plain = Detector(Squares(), threshold=0.1)(image)
    tiled = Detector(Squares(), threshold=0.1, tile=100, whole=True)(image)
    for name in ('boxes', 'scores', 'labels', 'masks'):
        assert np.array_equal(getattr(plain, name), getattr(tiled, name))
    assert tiled.class_names == NAMES
