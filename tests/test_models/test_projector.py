import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from mmdet_rfdetr.models.projector import ChannelLayerNorm


def make(**arguments):
    defaults = dict(type='RFDETRProjector', in_channels=[8, 8], out_channels=12)
    return MODELS.build({**defaults, **arguments})


def test_scales_of_the_levels():
    maps = [torch.randn(2, 8, 6, 4) for _ in range(2)]
    levels = make(scales=('P3', 'P4', 'P5'))(maps)
    assert [tuple(x.shape) for x in levels] == [
        (2, 12, 12, 8),
        (2, 12, 6, 4),
        (2, 12, 3, 2),
    ]


def test_maps_keep_their_order():
    """The first map is the first in the channels that are projected."""
    projector = make()
    maps = [torch.randn(1, 8, 4, 4) for _ in range(2)]
    seen = []
    projector.stages[0].c2f.cv1.conv.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    projector(maps)
    assert seen[0].equal(torch.cat(maps, dim=1))


def test_c2f_chains_bottlenecks_on_the_second_half():
    stage = make(num_blocks=2).stages[0]
    maps = [torch.randn(1, 8, 5, 5) for _ in range(2)]

    def conv(module, x):
        x = F.conv2d(x, module.conv.weight, padding=module.conv.weight.shape[-1] // 2)
        mean = x.mean(1, keepdim=True)
        variance = x.var(1, unbiased=False, keepdim=True)
        weight, bias = (
            p.view(-1, 1, 1) for p in (module.norm.weight, module.norm.bias)
        )
        return F.silu((x - mean) / (variance + 1e-6).sqrt() * weight + bias)

    first, second = conv(stage.c2f.cv1, torch.cat(maps, 1)).split(6, dim=1)
    third = conv(
        stage.c2f.bottlenecks[0].cv2, conv(stage.c2f.bottlenecks[0].cv1, second)
    )
    fourth = conv(
        stage.c2f.bottlenecks[1].cv2, conv(stage.c2f.bottlenecks[1].cv1, third)
    )
    joined = conv(stage.c2f.cv2, torch.cat((first, second, third, fourth), dim=1))
    torch.testing.assert_close(stage(maps), stage.norm(joined), rtol=1e-4, atol=1e-5)


def test_layer_norms_are_over_channels_with_a_small_epsilon():
    norms = [m for m in make().modules() if isinstance(m, ChannelLayerNorm)]
    assert len(norms) == 2 + 2 * 3 + 1
    assert {norm.eps for norm in norms} == {1e-6}
    normed = norms[0](torch.randn(2, 12, 3, 3) * 5 + 1)
    torch.testing.assert_close(normed.mean(1), torch.zeros(2, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(normed.var(1, unbiased=False), torch.ones(2, 3, 3))


@pytest.mark.parametrize('scales', ((), ('P5', 'P4'), ('P6',), ('P4', 'P4')))
def test_scales_that_do_not_exist(scales):
    with pytest.raises(ValueError, match="'P3', 'P4', 'P5'.* ascending"):
        make(scales=scales)
