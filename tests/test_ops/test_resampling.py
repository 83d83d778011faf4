import pytest
import torch

from mmdet_rfdetr.ops.resampling import resize_position_table
from tests import fixtures


def test_table_of_the_same_size_is_itself():
    table = torch.randn(1, 1 + 9, 4)
    assert resize_position_table(table, (3, 3)) is table


def test_table_keeps_its_class_entry_and_dtype():
    table = torch.randn(1, 1 + 9, 4).bfloat16()
    resized = resize_position_table(table, (2, 5))
    assert resized.shape == (1, 11, 4)
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized[:, 0], table[:, 0])


@fixtures.needs_fixtures
@pytest.mark.parametrize(
    ('case', 'side', 'size'),
    [
        *(
            (f'pe_load_{a}_to_{b}', a, (b, b))
            for a, b in [(24, 24), (24, 32), (32, 24), (37, 24), (24, 37), (44, 24)]
        ),
        *(
            (f'pe_runtime_24_to_{h}x{w}', 24, (h, w))
            for h, w in [(24, 24), (20, 20), (28, 28), (24, 20), (16, 36)]
        ),
    ],
)
def test_tables_are_resized_as_by_the_official_package(case, side, size):
    arrays, described = fixtures.load_pair('adapt')
    name = 'backbone.0.encoder.encoder.embeddings.position_embeddings'
    table = fixtures.rule().weight(name, (1, side * side + 1, 384), 21)
    resized = resize_position_table(torch.from_numpy(table), size)
    assert list(resized.shape) == described[case]['shape']
    stored = fixtures.strided(resized.numpy(), described[case]['stride'])
    torch.testing.assert_close(
        torch.from_numpy(stored), torch.from_numpy(arrays[case]), rtol=1e-5, atol=2e-6
    )
    total = resized.double().abs().sum().item()
    assert total == pytest.approx(described[case]['abs_sum'], rel=1e-6)


@pytest.mark.filterwarnings('ignore:.torch.jit.trace')
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_a_position_table_can_be_traced():
    """As mmengine does to count FLOPs; sizes are tensors then."""
    table = torch.randn(1, 1 + 4 * 4, 8)
    traced = torch.jit.trace(lambda x: resize_position_table(x, (4, 4)) + 0, table)
    assert torch.equal(traced(table), table)
