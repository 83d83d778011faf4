import math

import pytest
import torch
from torch import nn

from mmdet_rfdetr.models.decoder import (
    GroupSelfAttention,
    RFDETRDecoder,
    sine_embedding,
)
from mmdet_rfdetr.models.memory import Memory


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_sine_embedding():
    box = torch.tensor([0.1, 0.2, 0.3, 0.4])
    features = sine_embedding(box, 8)
    expected = []
    for number in (0.2, 0.1, 0.3, 0.4):
        for pair in range(2):
            angle = 2 * math.pi * number / 10000 ** (2 * pair / 4)
            expected += [math.sin(angle), math.cos(angle)]
    assert features.tolist() == pytest.approx(expected, abs=1e-6)


def test_queries_of_a_group_meet_only_each_other():
    attention = GroupSelfAttention(8, 2)
    query, position = torch.randn(2, 12, 8), torch.randn(2, 12, 8)
    other = query.clone()
    other[0, 5] = torch.randn(8)
    with torch.no_grad():
        change = attention(query, position, 3) - attention(other, position, 3)
    changed = change.abs().amax(-1) > 1e-6
    # Query 5 is in the second of three groups of four.
    assert changed[0].tolist() == [False] * 4 + [True] * 4 + [False] * 4
    assert not changed[1].any()


def test_self_attention_equals_that_of_pytorch():
    attention = GroupSelfAttention(8, 2)
    nn.init.normal_(attention.in_proj_bias)
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    reference.load_state_dict(attention.state_dict())
    query, position = torch.randn(2, 12, 8), torch.randn(2, 12, 8)
    with torch.no_grad():
        found = attention(query, position, 3)
        for group in (slice(0, 4), slice(4, 8), slice(8, 12)):
            positioned = (query + position)[:, group]
            expected, _ = reference(positioned, positioned, query[:, group])
            torch.testing.assert_close(found[:, group], expected)


def make_decoder(**arguments):
    return RFDETRDecoder(
        **{
            **dict(
                num_layers=2,
                embed_dims=8,
                self_attn_heads=2,
                cross_attn_heads=4,
                num_levels=2,
                num_points=2,
                feedforward_channels=16,
            ),
            **arguments,
        }
    )


def run(decoder, *, valid_ratios=None, **inputs):
    torch.manual_seed(1)
    return decoder(
        torch.randn(2, 6, 8),
        **dict(
            references=torch.rand(2, 6, 4),
            num_groups=2,
            memory=Memory(
                torch.randn(2, 15, 8), ((3, 4), (1, 3)), valid_ratios=valid_ratios
            ),
            **inputs,
        ),
    )


def test_every_layer_gives_a_normalised_output():
    outputs = run(make_decoder())
    assert outputs.shape == (2, 2, 6, 8)
    torch.testing.assert_close(
        outputs.mean(-1), torch.zeros(2, 2, 6), atol=1e-6, rtol=0
    )


def test_the_last_output_alone():
    decoder = make_decoder()
    assert run(decoder, last_only=True).equal(run(decoder)[-1:])


def test_layer_norms_have_the_epsilon_of_pytorch():
    norms = [m for m in make_decoder().modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 3 * 2 + 1
    assert {norm.eps for norm in norms} == {1e-5}


def test_ratios_of_one_mean_no_padding():
    decoder = make_decoder()
    torch.testing.assert_close(
        run(decoder, valid_ratios=torch.ones(2, 2, 2)), run(decoder)
    )


def test_references_are_scaled_to_the_padded_level():
    """The ratio of the width belongs to x and w, that of the height to y and h."""
    decoder = make_decoder()
    seen = []
    decoder.layers[0].cross_attn.register_forward_pre_hook(
        lambda module, inputs, keywords: seen.append(keywords['reference_points']),
        with_kwargs=True,
    )
    run(decoder)
    run(decoder, valid_ratios=torch.tensor([[[0.5, 1.0], [1, 1]], [[1, 1], [1, 0.25]]]))
    plain, scaled = seen
    factors = scaled / plain
    expected = [
        [[0.5, 1, 0.5, 1], [1, 1, 1, 1]],
        [[1, 1, 1, 1], [1, 0.25, 1, 0.25]],
    ]
    expected = torch.tensor(expected)[:, None].expand_as(factors)
    torch.testing.assert_close(factors, expected)


def test_positions_are_those_of_the_first_level():
    decoder = make_decoder()
    seen = []
    decoder.ref_point_head.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    ratios = torch.tensor([[[0.5, 0.5], [1, 1]]] * 2)
    run(decoder, valid_ratios=ratios)
    torch.manual_seed(1)
    torch.randn(2, 6, 8)
    torch.testing.assert_close(
        seen[0], sine_embedding(0.5 * torch.rand(2, 6, 4), 8), rtol=1e-4, atol=1e-6
    )
    assert len(seen) == 1


def test_dropout():
    decoder, plain = make_decoder(dropout=0.5), make_decoder(dropout=0.0)
    plain.load_state_dict(decoder.state_dict())
    assert not run(decoder.train()).equal(run(plain.train()))
    assert run(decoder.eval()).equal(run(plain.eval()))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    (
        (dict(self_attn_heads=3), 'embed_dims=8 .* self_attn_heads=3'),
        (dict(cross_attn_heads=3), 'embed_dims=8 .* cross_attn_heads=3'),
    ),
)
def test_heads_that_do_not_divide(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_decoder(**arguments)
