"""What a training step keeps in memory, against the official package."""

import pytest

from tests.live import needs_official
from tests.memory import DTYPES, VARIANTS, measure_in_child

pytestmark = [needs_official, pytest.mark.slow]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('variant', VARIANTS)
def test_a_training_step_takes_no_more_memory(variant, dtype):
    ours, official = (
        measure_in_child(side, variant, objects=7, dtype=dtype)['step']
        for side in ('ours', 'official')
    )
    print(
        f'{variant}, {dtype}, batch 2: {ours:.0f} MiB here, {official:.0f} MiB official'
    )
    assert ours <= official
