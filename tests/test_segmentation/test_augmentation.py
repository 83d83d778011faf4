"""Image, masks and boxes stay together from the file to the loss."""

import random

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

from mmdet_rfdetr.segmentation.point_sampling import TargetMasks, sample_bilinear
from tests.test_segmentation.project import CLASSES, shrunk_config, write_pictures

RING = CLASSES.index('ring')
# Images of any shape, padded to a batch, which becomes square afterwards.
PADDED = [
    dict(type='RFDETRResize', sizes=(72, 96, 120), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackDetInputs'),
]


@pytest.fixture
def hub():
    return MessageHub.get_instance('test_augmentation')


def training_batches(folder, hub, shipped, count):
    """Batches as the network gets them, images in [0, 255]."""
    init_default_scope('mmdet')
    write_pictures(folder)
    cfg = shrunk_config(folder)
    dataset = cfg.train_dataloader.dataset
    if not shipped:
        dataset.pipeline = [*dataset.pipeline[:2], *PADDED]
    dataset = DATASETS.build(dataset)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    for step in range(count):
        hub.update_info('iter', step)
        batch = pseudo_collate([dataset[index] for index in range(len(dataset))])
        batch = preprocessor(batch, training=True)
        images = batch['inputs'] * preprocessor.std + preprocessor.mean
        yield images, batch['data_samples']


def brightness(pixels, label):
    """What of pixels (3, P) RGB is an object of a class: above zero."""
    red, green, _ = pixels
    return green - 150 if label == RING else red - green - 75


@pytest.mark.parametrize('shipped', [True, False], ids=['shipped', 'padded'])
def test_masks_and_boxes_follow_the_image(tmp_path, hub, shipped):
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    sizes, flips, cut = set(), set(), 0
    for images, samples in training_batches(tmp_path, hub, shipped, count=12):
        masks = TargetMasks.from_instances(
            [sample.gt_instances for sample in samples],
            [sample.metainfo for sample in samples],
            torch.device('cpu'),
        )
        points = torch.rand(1, 1000, 2)
        side = images.shape[-1]
        target = 0
        for image, sample in zip(images, samples, strict=True):
            pixels = sample_bilinear(image[None], points)[0]
            objects = sample.gt_instances
            for box, label in zip(objects.bboxes, objects.labels, strict=True):
                inside = masks.sample(points, torch.tensor([target]))[0].bool()
                shown = brightness(pixels, label)
                sharp = shown.abs() > 30
                assert sharp.float().mean() > 0.8
                assert (inside == (shown > 0))[sharp].float().mean() > 0.98
                assert_box_fits(box, label, points[0][inside] * side)
                target += 1
            sizes.add(side)
            flips.add(sample.flip)
            cut += len(objects) < 2 or (objects.bboxes == 0).any().item()
        assert target == len(masks.planes)
    assert len(sizes) > 2
    assert flips == {True, False}
    assert bool(cut) == shipped


def assert_box_fits(box, label, points):
    """Points (n, 2) of a mask lie in its box, and reach its sides."""
    # Masks end with a pixel of the picture, which crops magnify; boxes anywhere.
    assert (points > box[:2] - 2).all()
    assert (points < box[2:] + 2).all()
    # A box that was cut may end in the gap between the two parts of a bar.
    if label == RING and len(points) > 20:
        gaps = torch.cat((points.amin(0) - box[:2], box[2:] - points.amax(0)))
        assert (gaps < 0.2 * (box[2:] - box[:2]).repeat(2) + 2).all()
