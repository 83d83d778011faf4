import copy

import pytest
import torch
from torch import nn

from mmdet_rfdetr.models.decoder import RFDETRDecoder
from mmdet_rfdetr.models.deployed_decoder import DeployedDecoder


def make(num_levels):
    """A plain decoder in which nothing is zero or one, and its deployed form."""
    torch.manual_seed(0)
    decoder = RFDETRDecoder(
        num_layers=3,
        embed_dims=8,
        self_attn_heads=2,
        cross_attn_heads=4,
        num_levels=num_levels,
        num_points=3,
        feedforward_channels=16,
    ).eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.4)
    return decoder, DeployedDecoder(copy.deepcopy(decoder))


@pytest.mark.parametrize('last_only', (False, True))
@pytest.mark.parametrize('padded', (False, True))
@pytest.mark.parametrize('shapes', (((3, 4),), ((3, 4), (1, 3))))
@torch.no_grad()
def test_it_is_the_plain_decoder(shapes, padded, last_only):
    decoder, deployed = make(len(shapes))
    tokens = sum(height * width for height, width in shapes)
    query = torch.randn(1, 6, 8).expand(2, -1, -1)
    inputs = dict(
        references=torch.rand(2, 6, 4),
        valid_ratios=torch.rand(2, len(shapes), 2) if padded else None,
        num_groups=1,
        memory=torch.randn(2, tokens, 8),
        memory_mask=torch.rand(2, tokens) < 0.4 if padded else None,
        spatial_shapes=shapes,
        last_only=last_only,
    )
    before = query.clone()
    torch.testing.assert_close(
        deployed(query, **inputs), decoder(query, **inputs), rtol=1e-4, atol=1e-5
    )
    assert query.equal(before)
