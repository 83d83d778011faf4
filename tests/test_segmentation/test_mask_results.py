"""Masks of detections at the size of the image."""

import json

import numpy as np
import pycocotools.mask as rle
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures.mask import BitmapMasks, encode_mask_results
from mmengine.structures import InstanceData

from mmdet_rfdetr.matching import Stages
from mmdet_rfdetr.segmentation import mask_results
from mmdet_rfdetr.segmentation.mask_results import EncodedMasks, full_size_masks
from mmdet_rfdetr.segmentation.point_sampling import MaskFeatures
from tests.interpreter import run_code
from tests.test_segmentation.case import tiny_config

META = dict(img_shape=(96, 96), batch_input_shape=(96, 96), ori_shape=(50, 70))


def predictions(queries=6, size=(24, 24)):
    """Smooth random masks, one channel each."""
    torch.manual_seed(0)
    coarse = torch.randn(2, queries, 6, 6)
    maps = F.interpolate(coarse, size=size, mode='bicubic')
    return MaskFeatures(maps, torch.eye(queries).expand(2, -1, -1), torch.zeros(1))


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(mask_results, 'DENSE_BYTES', 1000)
    monkeypatch.setattr(mask_results, 'CHUNK_BYTES', 4 * 50 * 70 * 2)


@pytest.mark.parametrize('rescale', [True, False])
def test_logits_are_resized_and_cut_at_zero(rescale):
    masks = predictions()
    queries = torch.tensor([4, 0, 4])
    found = full_size_masks(masks, 1, queries, META, rescale=rescale)
    size = (50, 70) if rescale else (96, 96)
    expected = F.interpolate(
        masks.spatial_features[1:, queries], size=size, mode='bilinear'
    )
    assert found.dtype == torch.bool
    torch.testing.assert_close(found, expected[0] > 0)


def test_chunks_do_not_change_the_masks(monkeypatch):
    queries = torch.arange(6)
    whole = full_size_masks(predictions(), 0, queries, META, rescale=True)
    monkeypatch.setattr(mask_results, 'CHUNK_BYTES', 4 * 50 * 70 * 4)
    parts = full_size_masks(predictions(), 0, queries, META, rescale=True)
    torch.testing.assert_close(parts, whole)


def test_padding_is_cut_off():
    """A padded image gets the masks that it would get alone, up to its border."""
    alone = predictions(size=(24, 16))
    maps = F.pad(alone.spatial_features, (0, 14, 0, 6), mode='replicate')
    padded = MaskFeatures(maps, alone.query_features, alone.bias)
    meta = dict(img_shape=(96, 64), ori_shape=(333, 217))
    queries = torch.arange(6)
    expected = full_size_masks(alone, 0, queries, meta, rescale=True)
    meta['batch_input_shape'] = (120, 120)
    found = full_size_masks(padded, 0, queries, meta, rescale=True)
    assert found.shape == expected.shape == (6, 333, 217)
    assert (found != expected).float().mean() < 1e-4


def test_padding_on_one_side_only_gives_the_exact_size():
    for width in range(1, 200, 7):
        meta = dict(
            img_shape=(96, 50), batch_input_shape=(96, 96), ori_shape=(width, width)
        )
        queries = torch.arange(2)
        found = full_size_masks(predictions(), 0, queries, meta, rescale=True)
        assert found.shape == (2, width, width)


SHAPES = [
    ((24, 24), (480, 640)),
    ((24, 24), (97, 31)),
    ((31, 17), (333, 500)),
    ((40, 40), (9, 13)),  # smaller than the map
    ((3, 5), (5, 3)),
    ((1, 1), (20, 30)),
]


@pytest.mark.parametrize('block', [2**18, 100])
@pytest.mark.parametrize('padding', [False, True])
@pytest.mark.parametrize('cells, size', SHAPES)
def test_drawing_what_is_positive_is_resizing_all(
    monkeypatch, cells, size, padding, block
):
    """To the last pixel, also where logits are exactly zero, or not finite."""
    monkeypatch.setattr(mask_results, '_BLOCK', block)
    torch.manual_seed(0)
    logits = F.interpolate(torch.randn(9, 1, 5, 4), size=cells, mode='bicubic')[:, 0]
    logits += 0.1 * torch.randn_like(logits)
    logits[1] = -1
    logits[2], logits[2, 0, -1] = -1, 3
    logits[3] = logits[3].round()
    logits[4] = 2
    logits[5, 0, 0] = float('nan')
    logits[6, -1, -1] = float('inf')
    logits[7, -1, 0] = -float('inf')
    meta = dict(img_shape=(90, 70), batch_input_shape=(96, 96) if padding else (90, 70))
    masks = torch.ones(9, size[1], size[0], dtype=torch.bool).transpose(1, 2)
    mask_results.draw_masks(logits, masks, meta)
    expected = mask_results._resize(logits[:, None], size, meta) > 0
    assert torch.equal(masks, expected)
    assert expected.any()


def test_masks_are_drawn_near_positive_logits_only(monkeypatch):
    """And PyTorch resizes one of all pixels only where rounding might decide."""
    sizes, resize = [], mask_results._resize

    def spy(logits, size, meta):
        sizes.append(len(logits) * size[0] * size[1])
        return resize(logits, size, meta)

    monkeypatch.setattr(mask_results, '_resize', spy)
    logits = torch.full((3, 24, 24), -1.0)
    logits[:, 10:12, 5] = torch.tensor([0.3, 1.0, 7.0])[:, None]
    masks = torch.empty(3, 640, 480, dtype=torch.bool).transpose(1, 2)
    meta = dict(img_shape=(96, 96))
    mask_results.draw_masks(logits, masks, meta)
    assert sizes == [24 * 480, 24 * 640]
    logits[1, 11, 2] = logits[1, 15, 8] = 1.0
    logits[1, 12:14, 4:6] = torch.tensor([0.0, -0.0])
    mask_results.draw_masks(logits, masks, meta)
    assert sizes[4:] == [480 * 640]
    assert torch.equal(masks, resize(logits[:, None], (480, 640), meta) > 0)


def test_masks_are_stored_by_columns_as_run_lengths_are(monkeypatch):
    """So that no encoder turns them round: mmdet's takes half its time for that."""
    found = full_size_masks(predictions(), 0, torch.arange(4), META, rescale=True)
    by_columns = found.numpy().transpose(1, 2, 0)
    assert by_columns.flags.f_contiguous
    codes = mask_results._encode(found)
    np.testing.assert_array_equal(rle.decode(codes), by_columns)
    assert codes == encode_mask_results(found.numpy())


def test_no_detection():
    found = full_size_masks(predictions(), 0, torch.arange(0), META, rescale=True)
    assert found.shape == (0, 50, 70)


def test_large_masks_come_encoded(small_limits):
    queries = torch.tensor([4, 0, 4, 2, 1])
    found = full_size_masks(predictions(), 0, queries, META, rescale=True)
    assert isinstance(found, EncodedMasks)
    logits = F.interpolate(
        predictions().spatial_features[:1, queries], size=(50, 70), mode='bilinear'
    )
    np.testing.assert_array_equal(found.to_ndarray(), (logits[0] > 0).numpy())


def encoded():
    bitmap = np.random.default_rng(0).random((4, 6, 9)) > 0.5
    codes = rle.encode(np.asfortranarray(bitmap.transpose(1, 2, 0).astype(np.uint8)))
    return EncodedMasks(codes, 6, 9), bitmap


def test_encoded_masks_are_bitmaps_for_the_visualizer():
    masks, bitmap = encoded()
    assert isinstance(masks, BitmapMasks)
    np.testing.assert_array_equal(masks.to_ndarray(), bitmap)
    np.testing.assert_array_equal(list(masks), bitmap)
    assert len(masks) == 4
    assert 'EncodedMasks(4 masks, height=6, width=9)' in repr(masks)


def test_encoded_masks_give_their_codes_to_the_metric():
    masks, bitmap = encoded()
    assert set(masks[2]) == {'size', 'counts'}
    np.testing.assert_array_equal(rle.decode(masks[2]), bitmap[2])


@pytest.mark.parametrize(
    'index',
    [
        slice(1, 3),
        torch.tensor([3, 0]),
        torch.tensor([True, False, True, True]),
        torch.tensor([False] * 4),
        np.array([2]),
    ],
)
def test_encoded_masks_are_indexed_with_the_instances(index):
    masks, bitmap = encoded()
    instances = InstanceData(scores=torch.arange(4.0), masks=masks)
    by_numbers = index if isinstance(index, slice) else np.asarray(index)
    for found in (instances[index].masks, masks[by_numbers]):
        np.testing.assert_array_equal(found.to_ndarray(), bitmap[by_numbers])


@pytest.mark.parametrize('threshold', [None, 0.5, 0.99])
def test_masks_of_weak_detections_are_not_computed(threshold, monkeypatch):
    asked = []
    of_queries = MaskFeatures.of_queries

    def spy(self, image, queries):
        asked.extend(queries.tolist())
        return of_queries(self, image, queries)

    monkeypatch.setattr(MaskFeatures, 'of_queries', spy)
    config = tiny_config(num_queries=6, num_select=6)
    if threshold is not None:
        config['test_cfg'].update(score_thr=threshold)
    logits = torch.full((1, 6, 5), -9.0)
    logits[0, torch.arange(6), 3] = torch.tensor([-1, 2, -2, 1, 3, -3.0])
    maps, queries, bias = predictions()
    (found,) = MODELS.build(config).bbox_head.predict_by_feat(
        Stages([logits], [torch.full((1, 6, 4), 0.5)]).with_task(
            'mask_head', [MaskFeatures(maps[:1], queries[:1], bias)]
        ),
        batch_img_metas=[dict(META, scale_factor=(96 / 70, 96 / 50))],
    )
    best_first = [4, 1, 3, 0, 2, 5]
    count = {None: 6, 0.5: 3, 0.99: 0}[threshold]
    assert asked == best_first[:count]
    assert found.masks.shape == (count, 50, 70)
    expected = full_size_masks(
        predictions(), 0, torch.tensor(best_first), META, rescale=True
    )
    torch.testing.assert_close(found.masks, expected[:count])


LIMIT = 400
"""MiB that masks of one image may take beyond the network, as the docs state."""


@pytest.mark.parametrize(
    ('count', 'share'),
    [
        # One mask after the other: ten of them tell the peak of 300, if the limit for
        # plain masks is lowered, too.
        pytest.param(10, 30, marks=pytest.mark.long, id='scaled'),
        pytest.param(22, 1, marks=pytest.mark.slow, id='plain'),
        pytest.param(300, 1, marks=pytest.mark.slow, id='encoded'),
    ],
)
def test_memory_of_masks_of_12_megapixels_is_bounded(count, share):
    code = """
        import json, resource, sys
        import torch
        import mmdet_rfdetr
        from mmdet.registry import MODELS
        from mmengine.registry import init_default_scope
        from mmdet_rfdetr.segmentation import mask_results
        from tests import parity
        from tests.test_segmentation.case import tiny_config

        def used():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        count, share = map(int, sys.argv[1:])
        init_default_scope('mmdet')
        torch.manual_seed(0)
        mask_results.DENSE_BYTES //= share
        model = MODELS.build(tiny_config(num_queries=count, num_select=count)).eval()
        (sample,) = parity.make_samples([(96, 96)], (96, 96))
        image = torch.randn(1, 3, 96, 96)
        with torch.no_grad():
            model(image, [sample], 'predict')  # what the network needs
            before = used()
            parity.set_original_size(sample, (3000, 4000))
            model(image, [sample], 'predict')
        found = sample.pred_instances.masks
        print(json.dumps([used() - before, type(found).__name__, len(found)]))
    """
    result = run_code(code, str(count), str(share))
    assert result.returncode == 0, result.stderr
    increase, kind, masks = json.loads(result.stdout)
    assert (kind, masks) == ('Tensor' if count == 22 else 'EncodedMasks', count)
    print(f'{count} masks of 4000 x 3000 pixels: {increase:.0f} MiB')
    assert increase < (200 if share > 1 else LIMIT)
