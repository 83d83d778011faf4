"""Parts of others in the model, of every kind that ``docs/structure.md`` promises."""

import inspect

import mmdet.models.losses
import pytest
import torch
from mmdet.models.losses import L1Loss
from mmdet.registry import MODELS
from torch import nn

from mmdet_rfdetr.errors import SettingError
from tests import parity

from .small import small_config

VIT = small_config()['backbone']
SWIN = dict(
    type='SwinTransformer',
    embed_dims=12,
    depths=(1, 1, 1, 1),
    num_heads=(1, 2, 3, 4),
    window_size=4,
    out_indices=(1, 2, 3),
)
RESNET = dict(type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3))
MAPPER = dict(type='ChannelMapper', kernel_size=1, out_channels=32, num_outs=4)
PYRAMID = dict(type='FPN', out_channels=32, num_outs=5, add_extra_convs='on_output')


def build(**parts):
    return MODELS.build({**small_config(), **parts})


def step(model):
    """One step of training and one of detecting."""
    images, samples = parity.rule_batch(((64, 64), (64, 64)), counts=(2, 1))
    losses = model.train()(images, samples, mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    with torch.no_grad():
        detected = model.eval()(images, samples, mode='predict')
    assert all(torch.isfinite(each.pred_instances.bboxes).all() for each in detected)
    return losses


@pytest.mark.parametrize(
    ('backbone', 'neck', 'levels'),
    [
        (SWIN, dict(MAPPER, in_channels=[24, 48, 96]), 4),
        (SWIN, dict(PYRAMID, in_channels=[24, 48, 96]), 5),
        (RESNET, dict(MAPPER, in_channels=[16, 32, 64], num_outs=3), 3),
        (
            dict(RESNET, out_indices=(3,)),
            dict(MAPPER, in_channels=[64], num_outs=1),
            1,
        ),
        (VIT, dict(MAPPER, in_channels=[48, 48], num_outs=2), 2),
    ],
)
def test_backbones_and_necks_of_mmdetection(backbone, neck, levels):
    torch.manual_seed(0)
    model = build(backbone=backbone, neck=neck)
    attention = model.decoder.layers[0].cross_attn
    assert attention.num_levels == levels
    assert model.backbone.training  # as every part that was just built
    step(model)
    for part in (model.backbone, model.neck, attention):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (
            dict(neck=dict(MAPPER, in_channels=[24, 48])),
            r'SwinTransformer gives .*\(24, 16, 16\).*ChannelMapper does not take',
        ),
        (
            dict(neck=dict(type='RFDETRProjector', in_channels=[24, 48, 96])),
            'RFDETRProjector does not take .*choose a neck for them, for ex.*Channel',
        ),
        (
            dict(decoder=dict(small_config()['decoder'], num_levels=1)),
            'decoder.num_levels=1, and ChannelMapper gives 4 maps of .*: make them eq',
        ),
        (dict(neck=None), 'neck=None: set a neck with out_channels'),
        (
            dict(backbone=VIT, neck=dict(MAPPER, in_channels=[7, 7])),
            'RFDETRBackbone gives .*ChannelMapper does not take',
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_built(parts, message):
    parts = {
        'backbone': SWIN,
        'neck': dict(MAPPER, in_channels=[24, 48, 96]),
        **parts,
    }
    if parts['neck'] is not None:
        parts['neck'].setdefault('out_channels', 32)
    with pytest.raises(SettingError, match=message):
        build(**parts)


def test_a_head_of_another_detector_is_refused():
    with pytest.raises(SettingError, match='DINOHead is a head of another detector'):
        build(bbox_head=head(type='DINOHead'))


def losses_of_mmdet():
    """Names of the losses of MMDetection that are modules of their own."""
    return [
        name
        for name, loss in vars(mmdet.models.losses).items()
        if inspect.isclass(loss) and MODELS.get(name) is loss
    ]


def head(**arguments):
    return dict(small_config()['bbox_head'], **arguments)


@pytest.mark.parametrize('name', losses_of_mmdet())
def test_losses_of_mmdetection_do_not_classify(name):
    with pytest.raises(SettingError, match=f'loss_cls.type={name} .*RFDETRIoUAware'):
        build(bbox_head=head(loss_cls=dict(type=name)))


class OwnLoss(nn.Module):
    """As ``docs/structure.md`` describes one."""

    def forward(self, cls_scores, matches, labels, ious):
        """Sum the logits of each stage."""
        return matches.sum_rows(cls_scores)


class OwnFocalLoss(mmdet.models.losses.FocalLoss, OwnLoss):
    """One that inherits its settings from MMDetection's."""

    forward = OwnLoss.forward


@pytest.mark.parametrize(
    'loss',
    [
        *(
            dict(type=f'RFDETR{name}Loss')
            for name in (
                *('IoUAwareBCE', 'SigmoidFocal', 'Varifocal'),
                'PositionSupervised',
            )
        ),
        dict(type=OwnLoss),
        dict(type=OwnFocalLoss, use_sigmoid=True),
    ],
)
def test_classification_losses_of_this_package_and_of_others(loss):
    step(build(bbox_head=head(loss_cls=loss)))


@pytest.mark.parametrize(
    'name', ['L1Loss', 'SmoothL1Loss', 'BalancedL1Loss', 'MSELoss']
)
def test_losses_of_centres_and_sizes(name):
    losses = step(build(bbox_head=head(loss_bbox=dict(type=name))))
    assert losses['loss_bbox'] > 0


IOU_LOSSES = [name for name in losses_of_mmdet() if name.endswith('IoULoss')]


@pytest.mark.parametrize('name', [*IOU_LOSSES, 'RFDETRGIoULoss', 'L1Loss'])
def test_losses_of_corners(name):
    assert len(IOU_LOSSES) >= 6
    losses = step(build(bbox_head=head(loss_iou=dict(type=name))))
    assert losses['loss_iou'] > 0


@pytest.mark.parametrize('name', [*IOU_LOSSES, 'RFDETRGIoULoss'])
def test_losses_of_corners_are_refused_for_centres_and_sizes(name):
    with pytest.raises(SettingError, match=f'{name} .* set it as bbox_head.loss_iou'):
        build(bbox_head=head(loss_bbox=dict(type=name)))


class OwnBoxLoss(L1Loss):
    """A loss of boxes that is no loss of MMDetection."""


def test_a_box_loss_of_ones_own():
    assert step(build(bbox_head=head(loss_bbox=dict(type=OwnBoxLoss))))


@pytest.mark.parametrize(
    ('path', 'value'),
    [
        *[('decoder.num_layers', value) for value in (-1, 2.5, True, '3')],
        *[(f'decoder.{name}', 0) for name in ('num_points', 'cross_attn_heads')],
        *[(name, 0) for name in ('num_queries', 'num_groups')],
        *[(f'backbone.{name}', 0) for name in ('num_windows', 'patch_size')],
        *[('bbox_head.num_classes', 0), ('test_cfg.max_per_img', 0)],
        ('neck.out_channels', 0),
    ],
)
def test_sizes_that_leave_nothing_are_refused(path, value):
    config = small_config()
    *folders, name = path.split('.')
    part = config
    for folder in folders:
        part = part[folder]
    part[name] = value
    with pytest.raises(SettingError, match=f'^{path}={value!r} must be a whole number'):
        MODELS.build(config)
