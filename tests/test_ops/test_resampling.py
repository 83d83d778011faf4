import pytest
import torch
import torch.nn.functional as F

from mmdet_rfdetr.ops.resampling import resample_patch_kernel, resize_position_table
from tests import fixtures


def tokens(patches, kernel):
    return F.conv2d(patches, kernel).flatten(1)


@pytest.mark.parametrize('side', [12, 14, 16, 20])
def test_kernel_of_the_same_size_is_itself(side):
    kernel = torch.randn(3, 3, side, side)
    assert resample_patch_kernel(kernel, side) is kernel


@pytest.mark.parametrize(('side', 'size'), [(14, 16), (14, 20), (6, 7), (2, 9)])
def test_larger_kernel_gives_the_same_tokens_for_resized_patches(side, size):
    torch.manual_seed(0)
    kernel = torch.randn(5, 3, side, side, dtype=torch.float64)
    patches = torch.randn(8, 3, side, side, dtype=torch.float64)
    resized = F.interpolate(patches, size=(size, size), mode='bilinear')
    larger = resample_patch_kernel(kernel, size)
    assert larger.shape == (5, 3, size, size)
    torch.testing.assert_close(tokens(resized, larger), tokens(patches, kernel))


def test_smaller_kernel_is_the_least_squares_solution():
    """No kernel does better on white noise; plain resizing does worse."""
    torch.manual_seed(0)
    kernel = torch.randn(4, 1, 14, 14, dtype=torch.float64)
    patches = torch.randn(4000, 1, 14, 14, dtype=torch.float64)
    resized = F.interpolate(patches, size=(12, 12), mode='bilinear')
    wanted = tokens(patches, kernel)

    def error(candidate):
        return (tokens(resized, candidate) - wanted).square().mean()

    smaller = resample_patch_kernel(kernel, 12)
    plain = F.interpolate(kernel, size=(12, 12), mode='bilinear')
    assert error(smaller) < 0.8 * error(plain * (14 / 12) ** 2)
    fitted = torch.linalg.lstsq(resized.flatten(1), wanted).solution
    best = error(fitted.T.reshape(4, 1, 12, 12))
    assert error(smaller) < 1.05 * best  # the best one overfits these patches


def test_kernel_keeps_its_dtype():
    assert resample_patch_kernel(torch.randn(2, 3, 4, 4).half(), 6).dtype == torch.half


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
