import numpy as np
import pycocotools.mask as rle
import pytest

from mmdet_rfdetr.segmentation.mask_rules import decode_runs, mask_problem

HEIGHT, WIDTH = 40, 60
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def runs(compressed):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    mask[10:30, 10:30] = 1
    code = rle.encode(mask)
    if compressed:
        return dict(size=code['size'], counts=code['counts'].decode())
    return dict(size=[HEIGHT, WIDTH], counts=[410, *[20, 20] * 19, 20, 1210])


def test_a_mask_that_is_good_has_no_problem():
    assert mask_problem([SQUARE], HEIGHT, WIDTH) is None
    assert mask_problem(runs(True), HEIGHT, WIDTH) is None
    assert mask_problem(runs(False), HEIGHT, WIDTH) is None


def test_run_lengths_as_other_tools_write_them():
    plain = runs(compressed=False)
    floats = dict(plain, counts=[float(run) for run in plain['counts']])
    assert mask_problem(floats, HEIGHT, WIDTH) is None
    array = dict(plain, size=np.array(plain['size']))
    assert mask_problem(array, HEIGHT, WIDTH) is None


@pytest.mark.parametrize(
    'counts',
    (
        *('', 'abc', 'damaged!', '0P', '1P', 'o' * 100_000 + '0'),
        *([HEIGHT * WIDTH + 9, -9], ['a'], [HEIGHT * WIDTH, 1]),
    ),
    ids=lambda counts: str(counts)[:20],
)
def test_damaged_run_lengths_are_a_problem(counts):
    problem = mask_problem(dict(size=[HEIGHT, WIDTH], counts=counts), HEIGHT, WIDTH)
    assert 'run length' in problem


@pytest.mark.parametrize('size', ([HEIGHT], dict(h=1), HEIGHT, ['a', 'b']))
@pytest.mark.parametrize('image', ((HEIGHT, WIDTH), (None, None)))
def test_a_size_that_is_none_is_a_problem(size, image):
    assert 'run' in mask_problem(dict(runs(False), size=size), *image)


@pytest.mark.parametrize('seed', range(5))
def test_compressed_run_lengths_are_read_as_pycocotools_reads_them(seed):
    mask = np.random.default_rng(seed).random((50, 70)) < (0.5, 0.01, 0.99, 0, 1)[seed]
    code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    expected = [0, *runs] if flat[0] else runs
    assert decode_runs(code['counts']).tolist() == expected
    assert decode_runs(code['counts'].decode()).tolist() == expected
