"""A checkpoint of another variant is refused with the name of its config."""

import pytest
import torch

from mmdet_rfdetr.checkpoints.fit import fit_model
from mmdet_rfdetr.errors import CheckpointError

from ..test_checkpoints.official import official_sizes, official_state
from ..test_checkpoints.test_fit import model_of


def test_another_variant_is_refused_with_its_config():
    nano = dict(
        vit_width=384,
        patch_size=16,
        grid=24,
        width=256,
        feedforward=8,
        num_groups=1,
        num_queries=1,
    )
    with pytest.raises(
        CheckpointError, match='decoder layers 2.*looks like rfdetr_nano_coco.py'
    ):
        fit_model(official_sizes(**nano), model_of(**{**nano, 'num_layers': 4}), {})
    nano['grid'] = 25  # the same network for another input size
    with pytest.raises(
        CheckpointError, match='decoder layers 2.*looks like rfdetr_nano_coco.py'
    ):
        fit_model(official_sizes(**nano), model_of(**{**nano, 'num_layers': 4}), {})


def test_a_keypoint_file_is_refused_as_such():
    official = official_state()
    official['keypoint_embed.layers.0.weight'] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError, match='a keypoint model'):
        fit_model(official, model_of(), {})
