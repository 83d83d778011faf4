"""Weights of models without masks begin one with masks."""

import pytest

from mmdet_rfdetr.errors import CheckpointError

from ..test_checkpoints.models import build_tiny


def test_own_weights_without_masks_begin_a_model_with_masks():
    masks = {
        'mask_head': dict(type='RFDETRMaskHead', downsample_ratio=4),
        'bbox_head.loss_mask': dict(
            type='RFDETRPointMaskLoss', mask_weight=5.0, dice_weight=5.0
        ),
    }
    boxes, with_masks = build_tiny(), build_tiny(**masks)
    missing = with_masks.load_state_dict(boxes.state_dict(), strict=False).missing_keys
    assert missing
    assert all(name.startswith('mask_head.') for name in missing)
    larger = build_tiny(**masks, **{'decoder.num_layers': 3})
    with pytest.raises(CheckpointError, match='decoder layers 2 .model: 3.'):
        larger.load_state_dict(boxes.state_dict(), strict=False)
