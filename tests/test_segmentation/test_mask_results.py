"""Masks of detections at the size of the image."""

import numpy as np
import pycocotools.mask as rle
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from mmdet_rfdetr.masks import MaskFeatures
from mmdet_rfdetr.models import mask_results
from mmdet_rfdetr.models.mask_results import EncodedMasks, full_size_masks
from tests.interpreter import run_code

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
    found = instances[index]
    expected = bitmap[index if isinstance(index, slice) else np.asarray(index)]
    np.testing.assert_array_equal(found.masks.to_ndarray(), expected)


def test_memory_of_300_masks_of_12_megapixels_is_bounded():
    """The limit stated for a large image: half a GiB beyond the network."""
    code = """
        import resource, sys
        import torch
        import mmdet_rfdetr
        from mmdet_rfdetr.masks import MaskFeatures
        from mmdet_rfdetr.models import mask_results

        def used():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        # One mask after the other: ten of them tell the peak of 300, if the limit for
        # plain masks is lowered, too.
        mask_results.DENSE_BYTES //= 30
        masks = MaskFeatures(
            torch.randn(1, 256, 24, 24), torch.randn(1, 300, 256), torch.zeros(1)
        )
        meta = dict(img_shape=(96, 96), ori_shape=(3000, 4000))
        before = used()
        found = mask_results.full_size_masks(
            masks, 0, torch.arange(10), meta, rescale=True
        )
        assert isinstance(found, mask_results.EncodedMasks)
        print(used() - before)
    """
    result = run_code(code)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 200
