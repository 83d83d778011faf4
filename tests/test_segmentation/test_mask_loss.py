"""The mask losses and the masks' part of the matching costs."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.matching import Matches
from mmdet_rfdetr.segmentation.mask_costs import add_mask_costs
from mmdet_rfdetr.segmentation.point_loss import RFDETRPointMaskLoss
from mmdet_rfdetr.segmentation.point_sampling import MaskFeatures, TargetMasks
from tests import parity
from tests.test_segmentation.case import tiny_config

SIZE = (20, 24)


def stage(queries=6, batch=2, requires_grad=False):
    tensors = torch.randn(batch, 4, *SIZE), torch.randn(batch, queries, 4)
    tensors = (*tensors, torch.randn(1))
    return MaskFeatures(*(t.requires_grad_(requires_grad) for t in tensors))


def target_masks(counts):
    generator = np.random.default_rng(0)
    instances = [
        InstanceData(
            masks=BitmapMasks(
                (generator.random((count, 40, 48)) > 0.5).astype(np.uint8), 40, 48
            )
        )
        for count in counts
    ]
    metas = [dict(img_shape=(40, 48))] * len(counts)
    return TargetMasks.from_instances(instances, metas, torch.device('cpu'))


def matches_of(rows, targets, counts, stage_sizes):
    stages = [s for s, images in enumerate(counts) for n in images for _ in range(n)]
    images = [i for images in counts for i, n in enumerate(images) for _ in range(n)]
    return Matches(
        *(torch.tensor(x, dtype=torch.long) for x in (stages, images, rows, targets)),
        stage_sizes=stage_sizes,
        pair_counts=counts,
    )


def fixed_points(name, shape, device):
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    return torch.rand(shape, generator=generator)


def plain_terms(logits, true, name):
    """Cross-entropy and dice of one pair (h, w), written down as in the paper."""
    height, width = SIZE
    count = max(height, height * width // 16)
    uncertain = int(0.75 * count)

    def at(points):
        grid = (2 * points - 1)[None, None]
        return F.grid_sample(
            logits[None, None], grid, padding_mode='border', align_corners=False
        )[0, 0, 0]

    candidates, rest = name
    chosen = at(candidates).abs().sort().indices[:uncertain]
    points = torch.cat((candidates[chosen], rest))
    x = at(points)
    y = true[(points[:, 1] * 40).long(), (points[:, 0] * 48).long()]
    entropy = -(y * x.sigmoid().log() + (1 - y) * (1 - x.sigmoid()).log()).mean()
    dice = 1 - (2 * (x.sigmoid() * y).sum() + 1) / (x.sigmoid().sum() + y.sum() + 1)
    return entropy, dice


def test_losses_equal_the_formula():
    torch.manual_seed(0)
    counts = ((2, 1), (1, 2))
    stages = [stage(), stage(5)]
    rows, targets = [3, 5, 1, 6, 10, 8], [1, 0, 2, 0, 2, 1]
    masks = target_masks((2, 1))
    matches = matches_of(rows, targets, counts, (6, 5))
    loss = RFDETRPointMaskLoss(mask_weight=3.0, dice_weight=7.0, points=fixed_points)
    found = loss(stages, masks, matches)

    expected = torch.zeros(2, 2)
    for index, name in enumerate(('final', 'enc')):
        start = sum(counts[0]) * index
        candidates = fixed_points(f'loss/{name}/over', (3, 90, 2), None)
        rest = fixed_points(f'loss/{name}/rest', (3, 8, 2), None)
        for pair in range(3):
            query = rows[start + pair] - 6 * index
            image = int(matches.images[start + pair])
            predicted = stages[index].of_all()[image, query]
            true = masks.planes[targets[start + pair]].float()
            expected[index] += torch.stack(
                plain_terms(predicted, true, (candidates[pair], rest[pair]))
            )
    torch.testing.assert_close(found['loss_mask'], 3 * expected[:, 0])
    torch.testing.assert_close(found['loss_dice'], 7 * expected[:, 1])


def test_without_pairs_the_losses_are_zero_and_connected():
    stages = [stage(requires_grad=True) for _ in range(2)]
    matches = matches_of([], [], ((0, 0), (0, 0)), (6, 6))
    losses = RFDETRPointMaskLoss()(stages, target_masks((0, 0)), matches)
    assert losses['loss_mask'].tolist() == losses['loss_dice'].tolist() == [0, 0]
    sum(losses.values()).sum().backward()
    for masks in stages:
        for part in masks:
            assert part.grad is not None
            assert not part.grad.any()


def test_losses_are_float32_in_autocast():
    with torch.autocast('cpu', torch.bfloat16):
        low = [MaskFeatures(*(part.bfloat16() for part in stage())) for _ in range(2)]
        matches = matches_of([0, 7], [0, 1], ((1, 0), (0, 1)), (6, 6))
        losses = RFDETRPointMaskLoss()(low, target_masks((1, 1)), matches)
    assert {value.dtype for value in losses.values()} == {torch.float32}


@pytest.mark.parametrize('weights', [(5.0, 5.0), (2.0, 0.0), (0.0, 3.0)])
def test_mask_costs_equal_the_formula(weights):
    torch.manual_seed(1)
    stages, targets = [stage(), stage()], target_masks((2, 1))
    mask_weight, dice_weight = weights
    costs = torch.zeros(2, 2, 12)
    add_mask_costs(
        costs.split(6, dim=2),
        stages,
        targets,
        torch.tensor([[0, 1], [2, 0]]),
        mask_weight=mask_weight,
        dice_weight=dice_weight,
        point_ratio=16,
        points=fixed_points,
    )
    for image, objects in enumerate([[0, 1], [2]]):
        for index, name in enumerate(('final', 'enc')):
            points = fixed_points(f'matcher/{name}', (1, 30, 2), None)
            x = stages[index].at_points(points)[image]
            y = targets.sample(points, torch.tensor(objects))
            entropy = torch.stack(
                [
                    F.binary_cross_entropy_with_logits(
                        x, true.expand_as(x), reduction='none'
                    ).mean(1)
                    for true in y
                ]
            )
            p = x.sigmoid()
            overlap = (p * y[:, None]).sum(2)
            dice = 1 - (2 * overlap + 1) / (p.sum(1) + y.sum(1)[:, None] + 1)
            torch.testing.assert_close(
                costs[image, : len(objects), 6 * index : 6 * index + 6],
                mask_weight * entropy + dice_weight * dice,
                rtol=1e-4,
                atol=1e-5,
            )


class LargestTensor(TorchDispatchMode):
    """Remember the most numbers that any operation returned in one tensor."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_training_never_builds_the_masks_of_all_queries():
    # Many queries, so that their masks would be larger than anything else.
    config = tiny_config(num_queries=60, num_select=60)
    model = parity.MODELS.build(config).train()
    targets = [
        dict(labels=np.array([1]), boxes=np.full((1, 4), 0.5, np.float32)),
        dict(labels=np.array([2]), boxes=np.full((1, 4), 0.5, np.float32)),
    ]
    for target in targets:
        target['masks'] = np.ones((1, 96, 96), bool)
    samples = parity.make_samples([(96, 96)] * 2, (96, 96), targets)
    with LargestTensor() as largest:
        losses = model(torch.randn(2, 3, 96, 96), samples, 'loss')
        sum(losses.values()).backward()
    assert largest.numel < 2 * 3 * 60 * 24 * 24
    model.eval()
    with LargestTensor() as largest, torch.no_grad():
        model(torch.randn(2, 3, 96, 96))
    assert largest.numel == 2 * 60 * 24 * 24


@pytest.mark.parametrize('count', [0, 1])
def test_every_parameter_gets_a_gradient(count):
    """Also without objects: in data-parallel training all processes must agree."""
    model = parity.MODELS.build(tiny_config()).train()
    target = dict(
        labels=np.full(count, 1),
        boxes=np.full((count, 4), 0.5, np.float32),
        masks=np.ones((count, 96, 96), bool),
    )
    samples = parity.make_samples([(96, 96)], (96, 96), [target])
    sum(model(torch.randn(1, 3, 96, 96), samples, 'loss').values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    touched = model.mask_head.spatial_features_proj.weight.grad.any().item()
    assert touched == bool(count)


def test_masks_and_their_loss_go_together():
    config = tiny_config()
    del config['mask_head']
    with pytest.raises(SettingError, match=r'mask_head=None and bbox_head\.loss_mask='):
        parity.MODELS.build(config)
    config = tiny_config()
    del config['bbox_head']['loss_mask']
    with pytest.raises(SettingError, match=r'mask_head and bbox_head\.loss_mask=None'):
        parity.MODELS.build(config)


def test_settings_of_masks_among_those_of_boxes_and_matching():
    config = tiny_config()
    config['train_cfg']['assigner'].update(mask_weight=2.0, point_ratio=9)
    before = copy.deepcopy(config)
    head = parity.MODELS.build(config).mask_head
    assert config == before
    assert (head.mask_weight, head.dice_weight, head.point_ratio) == (2, 5, 9)
    # A detector from such a config leaves them out with the head.
    config['mask_head'] = config['bbox_head']['loss_mask'] = None
    assert not hasattr(parity.MODELS.build(config), 'mask_head')


@pytest.mark.parametrize(
    'settings',
    (
        dict(pad_mask=True),
        dict(
            batch_augments=[
                dict(type='mmdet.BatchFixedSizePad', size=(128, 128), pad_mask=True)
            ]
        ),
    ),
    ids=('to the batch', 'to a fixed size'),
)
def test_masks_must_not_be_padded(settings):
    config = tiny_config()
    config['data_preprocessor'] = dict(type='mmdet.DetDataPreprocessor', **settings)
    with pytest.raises(ValueError, match='pad_mask=True with mask_head'):
        parity.MODELS.build(config)
