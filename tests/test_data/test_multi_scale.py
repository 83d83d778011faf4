import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, OPTIM_WRAPPERS
from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from mmdet_rfdetr.data import RFDETRBatchMultiScale
from mmdet_rfdetr.data.multi_scale import optimizer_step
from tests.fixtures import load_json, load_pair, needs_fixtures, rule, strided


@pytest.fixture
def hub():
    """A message hub that is the current one, as in a run."""
    return MessageHub.get_instance('test_multi_scale')


@needs_fixtures
def test_every_step_has_the_official_size():
    for name, facts in load_json('schedules')['multi_scale'].items():
        divisor = facts['patch_size'] * facts['num_windows']
        augment = RFDETRBatchMultiScale(facts['resolution'], divisor)
        drawn = [augment.size_at(step) for step in range(100)]
        assert drawn == facts['per_batch_choice_global_step_0_to_99_expanded'], name


@needs_fixtures
def test_pixels_equal_the_official_ones():
    arrays, description = load_pair('preprocess')
    facts = description['multiscale_384_to_448']
    batch = torch.from_numpy(rule().image_batch(11, 1, 384, 384))
    augment = RFDETRBatchMultiScale(448, 32, offsets=(0,))
    resized, _ = augment(batch, [sample((384, 384), [])])
    assert list(resized.shape) == facts['shape']
    np.testing.assert_allclose(
        strided(resized, facts['stride']), arrays['multiscale_384_to_448'], atol=1e-6
    )


def sample(img_shape, boxes):
    built = DetDataSample(
        metainfo=dict(img_shape=img_shape, scale_factor=(2.0, 2.0), img_id=1)
    )
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    built.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.arange(len(boxes)), masks=['mask'] * len(boxes)
    )
    return built


def relative_boxes(built):
    height, width = built.img_shape
    return built.gt_instances.bboxes / torch.tensor([width, height] * 2)


def test_boxes_keep_their_place_in_padded_images():
    samples = [
        sample((64, 96), [(10, 20, 30, 40), (0, 0, 96, 64)]),
        sample((96, 50), [(1, 2, 49, 95)]),
        sample((33, 33), []),
    ]
    before = [relative_boxes(s) for s in samples]
    augment = RFDETRBatchMultiScale(160, 32, offsets=(0,))
    inputs, after = augment(torch.zeros(3, 3, 96, 96), samples)
    assert inputs.shape == (3, 3, 160, 160)
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(relative_boxes(new), old, atol=1e-6, rtol=0)
        assert new.batch_input_shape == (160, 160)
        assert new.pad_shape == (160, 160)
    assert [s.img_shape for s in after] == [(107, 160), (160, 84), (55, 55)]
    assert after[0].scale_factor == (2 * 160 / 96, 2 * 107 / 64)
    assert after[0].gt_instances.masks == ['mask', 'mask']


@pytest.mark.parametrize('valid', [1, 33, 50, 64, 95, 96])
@pytest.mark.parametrize('size', [64, 96, 160])
def test_padding_is_the_official_resized_mask(valid, size):
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., valid:] = 1
    official = torch.nn.functional.interpolate(mask, size=(size, size))[0, 0, 0]
    augment = RFDETRBatchMultiScale(size, 32, offsets=(0,))
    _, (after,) = augment(torch.zeros(1, 3, 96, 96), [sample((96, valid), [])])
    assert after.img_shape[1] == int((official == 0).sum())


def preprocess(training, hub_info, hub):
    """A batch through mmdet's preprocessor with the augment in it."""
    for key, value in hub_info.items():
        hub.update_info(key, value)
    preprocessor = MODELS.build(
        dict(
            type='DetDataPreprocessor',
            pad_size_divisor=32,
            batch_augments=[
                dict(type='RFDETRBatchMultiScale', image_size=224, size_divisor=32)
            ],
        )
    )
    images = [torch.zeros(3, 384, 384, dtype=torch.uint8)] * 2
    samples = [sample((384, 384), [(0, 0, 384, 192)]) for _ in images]
    data = preprocessor(dict(inputs=images, data_samples=samples), training)
    return data['inputs'].shape[-1], data['data_samples'][0]


def test_size_follows_the_optimizer_step_of_the_run(hub):
    augment = RFDETRBatchMultiScale(224, 32)
    for iteration in range(12):
        info = dict(iter=iteration, accumulative_counts=4)
        size, _ = preprocess(True, info, hub)
        assert size == augment.size_at(iteration // 4)
    assert len({augment.size_at(step) for step in range(3)}) > 1


def test_boxes_follow_the_size(hub):
    size, after = preprocess(True, dict(iter=1), hub)
    assert size != 384
    assert after.gt_instances.bboxes.tolist() == [[0, 0, size, size / 2]]


def test_validation_keeps_its_size(hub):
    assert preprocess(False, dict(iter=1), hub)[0] == 384


def test_the_optimizer_wrapper_tells_its_accumulation(hub):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    OPTIM_WRAPPERS.build(
        dict(type='RFDETRAmpOptimWrapper', optimizer=optimizer, accumulative_counts=3)
    )
    hub.update_info('iter', 7)
    assert optimizer_step() == 2
    assert 'accumulative_counts' not in hub.state_dict()['runtime_info']
