"""MMDetection's augmentations before and after the steps of this package."""

import numpy as np
import pytest
from mmdet.registry import DATASETS

from tests.factory import build, document, write

SCALE = (48, 48)
SINGLE = [
    dict(type='PhotoMetricDistortion'),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='Expand', prob=1.0),
    dict(type='MinIoURandomCrop'),
    dict(type='RandomAffine'),
    dict(type='RandomShift', prob=1.0, max_shift_px=5),
    dict(type='CutOut', n_holes=2, cutout_ratio=(0.2, 0.2)),
    dict(type='RandomErasing', n_patches=2, ratio=0.2),
    dict(type='RandomCrop', crop_size=(30, 30)),
    dict(type='AutoAugment'),
    dict(type='RandAugment'),
    dict(type='Solarize', prob=1.0),
    dict(type='Pad', size_divisor=32),
]
MIXING = [
    dict(type='Mosaic', img_scale=SCALE),
    dict(type='MixUp', img_scale=SCALE),
    dict(type='CachedMosaic', img_scale=SCALE),
    dict(type='CachedMixUp', img_scale=SCALE),
    dict(type='CopyPaste', selected=False),
]
RESIZE = dict(type='RFDETRResize', image_size=64)
CROP = dict(type='RFDETRRandomSquareCrop', min_side=30, max_side=40)
PACK = dict(type='PackDetInputs', meta_keys=())


def images(folder, **annotations):
    """Images of one size with boxes and, on request, masks."""
    data = document()
    for annotation in data['annotations']:
        x, y, w, h = annotation['bbox']
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        annotation['segmentation'] = [corners]
    load = [
        dict(type='RFDETRLoadImage'),
        dict(type='LoadAnnotations', with_bbox=True, **annotations),
        dict(type='RFDETRResize', image_size=48),
    ]
    return build(write(folder, data), pipeline=load)


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    return images(tmp_path_factory.mktemp('boxes'))


@pytest.fixture(scope='module')
def with_masks(tmp_path_factory):
    return images(tmp_path_factory.mktemp('masks'), with_mask=True)


def run(dataset, *pipeline):
    """Items of both rounds, since augmentations are drawn."""
    dataset = DATASETS.build(
        dict(type='MultiImageMixDataset', dataset=dataset, pipeline=pipeline)
    )
    np.random.seed(0)
    for index in [*range(3)] * 2:
        pixels = dataset[index]['inputs'].float()
        assert len(pixels) == 3 and pixels.std() > 5
        yield pixels


@pytest.mark.parametrize('step', SINGLE + MIXING, ids=lambda step: step['type'])
def test_augmentations_go_before_our_steps(loaded, with_masks, step):
    dataset = with_masks if step['type'] == 'CopyPaste' else loaded
    for pixels in run(dataset, step, RESIZE, CROP, RESIZE, PACK):
        assert pixels.shape == (3, 64, 64)
        assert pixels.min() >= 0 and pixels.max() <= 255


@pytest.mark.parametrize('step', SINGLE, ids=lambda step: step['type'])
def test_augmentations_go_after_our_steps(loaded, step):
    assert len(list(run(loaded, RESIZE, CROP, step, PACK))) == 6
