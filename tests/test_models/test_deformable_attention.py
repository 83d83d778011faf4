import math

import pytest
import torch
from torch import nn

from mmdet_rfdetr.models.deformable_attention import (
    MultiScaleDeformableAttention,
    sample_and_sum,
)
from mmdet_rfdetr.models.memory import Memory

SHAPES = ((4, 6), (2, 3))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def slow_sample(level, x, y):
    """Read a map (h, w, channels) at x, y in [0, 1]; zero outside of it."""
    height, width, _ = level.shape
    x, y = x * width - 0.5, y * height - 0.5
    left, top = math.floor(x), math.floor(y)
    value = 0
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(x - column)) * (1 - abs(y - row))
                value = value + weight * level[row, column]
    return value


def slow_sum(value, locations, weights):
    batch, queries, heads, levels, points, _ = locations.shape
    out = torch.zeros(batch, queries, heads, value.shape[-1])
    for b in range(batch):
        for q in range(queries):
            for h in range(heads):
                start = 0
                for lvl in range(levels):
                    height, width = SHAPES[lvl]
                    level = value[b, start : start + height * width, h]
                    level = level.view(height, width, -1)
                    start += height * width
                    for p in range(points):
                        x, y = locations[b, q, h, lvl, p].tolist()
                        weight = weights[b, q, h, lvl, p]
                        out[b, q, h] += weight * slow_sample(level, x, y)
    return out.flatten(2)


def test_sampling_equals_a_slow_loop():
    memory = sum(height * width for height, width in SHAPES)
    value = torch.randn(2, memory, 3, 4)
    # Some points lie outside of the image.
    locations = torch.rand(2, 5, 3, 2, 2, 2) * 1.4 - 0.2
    weights = torch.rand(2, 5, 3, 2, 2)
    found = sample_and_sum(
        value.permute(0, 2, 3, 1),
        SHAPES,
        2 * locations.permute(0, 2, 3, 4, 1, 5) - 1,
        weights.permute(0, 2, 3, 4, 1).flatten(2, 3),
    )
    torch.testing.assert_close(found, slow_sum(value, locations, weights))


def make(num_points=2):
    attention = MultiScaleDeformableAttention(
        embed_dims=12, num_heads=3, num_levels=2, num_points=num_points
    )
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    return attention


@pytest.mark.parametrize('num_points', (2, 3))
def test_attention_equals_its_formula(num_points):
    attention = make(num_points)
    query, memory = torch.randn(2, 5, 12), torch.randn(2, 30, 12)
    mask = torch.rand(2, 30) < 0.3
    references = torch.rand(2, 5, 2, 4)
    with torch.no_grad():
        value = attention.value_proj(memory) * ~mask[..., None]
        offsets = attention.sampling_offsets(query).view(2, 5, 3, 2, num_points, 2)
        weights = attention.attention_weights(query).view(2, 5, 3, -1).softmax(-1)
        centres, sizes = references[:, :, None, :, None].split(2, dim=-1)
        locations = centres + offsets / num_points * sizes * 0.5
        expected = attention.output_proj(
            slow_sum(
                value.view(2, 30, 3, 4),
                locations,
                weights.view(2, 5, 3, 2, num_points),
            )
        )
        found = attention(
            query,
            memory=Memory(memory, SHAPES, mask),
            reference_points=references,
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_padded_memory_is_not_read():
    attention = make()
    mask = torch.zeros(1, 30, dtype=torch.bool)
    mask[0, 10:] = True
    memory = torch.randn(1, 30, 12)
    other = torch.where(mask[..., None], torch.randn(1, 30, 12), memory)
    query, references = torch.randn(1, 5, 12), torch.rand(1, 5, 2, 4)
    outputs = [
        attention(
            query,
            memory=Memory(x, SHAPES, mask),
            reference_points=references,
        )
        for x in (memory, other)
    ]
    assert outputs[0].equal(outputs[1])


def test_heads_start_in_directions_of_their_own():
    attention = MultiScaleDeformableAttention(
        embed_dims=16, num_heads=8, num_levels=2, num_points=3
    )
    bias = attention.sampling_offsets.bias.view(8, 2, 3, 2)
    for head in range(8):
        angle = 2 * math.pi * head / 8
        x, y = math.cos(angle), math.sin(angle)
        longer = max(abs(x), abs(y))
        for level in range(2):
            for point in range(3):
                expected = [(point + 1) * x / longer, (point + 1) * y / longer]
                assert bias[head, level, point].tolist() == pytest.approx(
                    expected, abs=1e-5
                )
    for name in ('sampling_offsets', 'attention_weights'):
        assert not getattr(attention, name).weight.any()
    assert not attention.attention_weights.bias.any()
    bound = math.sqrt(6 / (16 + 16))
    for name in ('value_proj', 'output_proj'):
        linear = getattr(attention, name)
        assert not linear.bias.any()
        assert 0.9 * bound < linear.weight.abs().max() <= bound
