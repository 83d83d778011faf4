import pytest
import torch
from torch import nn

from mmdet_rfdetr.models.backbone import DropPath

from .small import small_backbone


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(module):
    """Weights with which every part of a module has a visible effect."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def run_blocks(backbone, images):
    """Windowed tokens (B, windows, tokens, C) before the blocks and after each."""
    states = []
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        for block in backbone.blocks
    ]
    hooks.append(
        backbone.blocks[-1].register_forward_hook(
            lambda module, inputs, output: states.append(output)
        )
    )
    with torch.no_grad():
        backbone(images)
    for hook in hooks:
        hook.remove()
    return [state.unflatten(0, (len(images), -1)) for state in states]


def test_one_map_for_each_output():
    maps = small_backbone(out_indices=(1, 2, 4))(torch.randn(2, 3, 32, 48))
    assert [tuple(x.shape) for x in maps] == [(2, 48, 4, 6)] * 3


def test_windows_hold_their_own_part_of_the_image():
    """An image that differs in one window only differs in that window's tokens."""
    backbone = randomise(small_backbone())
    images = torch.randn(2, 3, 32, 48)
    other = images.clone()
    # The window in the upper right: rows 0-15, columns 24-47.
    other[1, :, 3, 30] += 1
    before, after = (run_blocks(backbone, x)[0] for x in (images, other))
    changed = (before != after).any(-1)
    # Row 0, column 0 of 3 in that window; token 0 is the class token.
    assert changed.nonzero().tolist() == [[1, 1, 1]]


def test_windowed_and_global_blocks():
    backbone = randomise(small_backbone(out_indices=(2, 4)))
    images = torch.randn(1, 3, 32, 32)
    other = images.clone()
    other[0, :, 20, 4] += 1
    states = zip(run_blocks(backbone, images), run_blocks(backbone, other), strict=True)
    changed = [(a != b).any(-1).any(-1)[0].tolist() for a, b in states]
    # The lower left window, and with block 2, the only global one, all windows.
    assert changed[:3] == [[False, False, True, False]] * 3
    assert changed[3:] == [[True] * 4] * 2


def test_class_tokens_of_all_windows_take_part_in_global_attention():
    backbone = randomise(small_backbone(out_indices=(1, 2)))
    global_block = backbone.blocks[1]
    tokens = torch.randn(4, 5, 48)
    other = tokens.clone()
    other[3, 0] = torch.randn(48)
    with torch.no_grad():
        change = (global_block(tokens, 4) - global_block(other, 4)).abs().amax(-1)
    assert change.min() > 1e-3


def test_global_attention_equals_attention_over_the_joined_windows():
    backbone = randomise(small_backbone())
    block = backbone.blocks[2]
    tokens = torch.randn(2 * 4, 5, 48)
    with torch.no_grad():
        attended = block.attn(block.norm1(tokens).reshape(2, 20, 48))
        tokens_after = tokens + block.layer_scale1 * attended.reshape(8, 5, 48)
        expected = tokens_after + block.layer_scale2 * block.mlp(
            block.norm2(tokens_after)
        )
        torch.testing.assert_close(block(tokens, 4), expected)


def test_attention_is_softmax_attention_of_packed_queries_keys_and_values():
    attention = randomise(small_backbone()).blocks[0].attn
    tokens = torch.randn(3, 7, 48)
    reference = nn.MultiheadAttention(48, 3, batch_first=True)
    reference.in_proj_weight.data = attention.qkv.weight.data
    reference.in_proj_bias.data = attention.qkv.bias.data
    reference.out_proj.weight.data = attention.proj.weight.data
    reference.out_proj.bias.data = attention.proj.bias.data
    with torch.no_grad():
        expected, _ = reference(tokens, tokens, tokens)
        torch.testing.assert_close(attention(tokens), expected)


def test_maps_are_laid_out_as_the_image():
    """Without blocks that move anything, each place shows its own patch."""
    backbone = small_backbone(out_indices=(1,))
    for block in backbone.blocks:
        nn.init.zeros_(block.layer_scale1)
        nn.init.zeros_(block.layer_scale2)
    nn.init.zeros_(backbone.pos_embed)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        (x,) = backbone(images)
        patches = backbone.patch_embed(images)
        expected = backbone.norm(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(x, expected)


def test_registers_join_the_attention_and_leave_the_maps():
    backbone = randomise(small_backbone(num_registers=3))
    images = torch.randn(1, 3, 32, 32)
    tokens = run_blocks(backbone, images)[0]
    assert tokens.shape == (1, 4, 1 + 3 + 4, 48)
    assert (tokens[0, :, 1:4] == backbone.register_tokens).all()
    with torch.no_grad():
        before = backbone(images)[0]
        nn.init.normal_(backbone.register_tokens)
        after = backbone(images)[0]
    assert before.shape == (1, 48, 4, 4) and (before != after).all()


def test_layer_norms_have_the_epsilon_of_dinov2():
    norms = [m for m in small_backbone().modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 2 * 4 + 1
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize(('size', 'named'), (((40, 32), '40 x 32'), ((32, 36), '36')))
def test_size_that_does_not_divide(size, named):
    backbone = small_backbone()
    assert backbone.size_divisor == 16
    with pytest.raises(ValueError, match=named) as error:
        backbone(torch.zeros(1, 3, *size))
    assert 'multiples of 16' in str(error.value)
    assert 'pad_size_divisor=16' in str(error.value)


def test_blocks_after_the_last_map_are_not_built():
    assert len(small_backbone(out_indices=(1, 3)).blocks) == 3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    (
        (dict(num_heads=5), 'embed_dims=48 .* num_heads=5'),
        (dict(out_indices=(4, 2)), 'ascending'),
        (dict(out_indices=(0, 2)), 'at least 1'),
        (dict(out_indices=(2, 2)), 'ascending'),
        (dict(frozen_stages=5), 'frozen_stages=5 .* out_indices'),
        (dict(frozen_stages=-2), 'frozen_stages=-2'),
    ),
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_backbone(**arguments)


def test_other_input_channels():
    backbone = small_backbone(in_channels=5)
    assert backbone(torch.zeros(1, 5, 32, 32))[0].shape == (1, 48, 4, 4)


@pytest.mark.parametrize('stages', range(-1, 5))
def test_frozen_stages(stages):
    backbone = small_backbone(frozen_stages=stages, num_registers=1)
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    expected = set()
    if stages >= 0:
        expected = {'patch_embed', 'cls_token', 'pos_embed', 'register_tokens'}
        expected |= {f'blocks.{index}' for index in range(stages)}
    if stages == 4:
        expected.add('norm')
    wanted = {
        name
        for name, _ in backbone.named_parameters()
        if any(name == part or name.startswith(f'{part}.') for part in expected)
    }
    assert frozen == wanted


def test_recomputed_blocks_give_the_same_gradients():
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(1)
        backbone = small_backbone(with_cp=with_cp, drop_path_rate=0.3).train()
        sum(x.square().sum() for x in backbone(images)).backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.equal(recomputed) and plain.any()


def test_recomputation_saves_the_inner_states():
    sizes = []
    for with_cp in (False, True):
        backbone = small_backbone(with_cp=with_cp).train()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x
        ):
            backbone(torch.randn(1, 3, 32, 32))
        sizes.append(sum(saved))
    assert sizes[1] < sizes[0] / 2


def test_drop_path_drops_whole_rows_and_keeps_the_mean():
    drop = DropPath(0.4)
    x = torch.ones(4000, 2, 3)
    dropped = drop(x)
    rows = dropped.flatten(1)
    assert (rows == rows[:, :1]).all()
    values = rows[:, 0].unique()
    torch.testing.assert_close(values, torch.tensor([0, 1 / 0.6]))
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x


def test_each_window_drops_for_itself():
    backbone = small_backbone(drop_path_rate=0.5).train()
    rows = []
    for block in backbone.blocks:
        block.drop_path.register_forward_hook(
            lambda module, inputs, output: rows.append(output.flatten(1).any(1))
        )
    backbone(torch.randn(16, 3, 32, 32))
    # Attention and MLP of four blocks, 16 images of 4 windows.
    assert [len(kept) for kept in rows] == [64] * 8
    for kept in rows:
        assert 0 < kept.float().mean() < 1
        images = kept.view(16, 4)
        assert (images.any(1) & ~images.all(1)).any()
    assert not rows[0].equal(rows[1])


def test_no_drop_path_module_without_a_rate():
    assert not any(isinstance(m, DropPath) for m in small_backbone().modules())
