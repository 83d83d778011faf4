"""The stress case is one: it overflows in float16 and still looks at the image."""

import pytest
import torch

from tests.test_deploy import exported
from tests.test_deploy.stressed import VALUE, streams_of, stressed


@pytest.mark.parametrize('case', ('windows', 'levels'))
def test_one_channel_overflows(case):
    model, size = exported.small_model(case)
    images = exported.clear_images(model, size, 2)
    changed = stressed(model, images, channel=5)
    for stream in streams_of(changed, images).values():
        large = stream[..., 5].abs()
        # All but where one sign passes into the other in a table that is resized.
        assert large.half().square().isinf().float().mean() > 0.6
        others = torch.cat((stream[..., :5], stream[..., 6:]), dim=-1)
        assert others.abs().max() < VALUE / 2
    before, after = (exported.outputs_of(x, images) for x in (model, changed))
    for name in before:
        assert after[name].isfinite().all()
        # Other images, other outputs: the channel did not drown the others.
        spread = [x[name].diff(dim=0).abs().mean() for x in (before, after)]
        assert spread[1] > 0.3 * spread[0]
