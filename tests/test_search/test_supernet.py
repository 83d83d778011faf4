"""A detector with a search space: what it computes as each of its sub-nets."""

import pytest
import torch

from mmdet_rfdetr.checkpoints.names import to_official
from mmdet_rfdetr.errors import DeployedModelError, ImageSizeError, SettingError
from mmdet_rfdetr.search import Subnet
from mmdet_rfdetr.search.supernet import home_subnet, set_subnet
from tests import factory

SPACE = dict(
    image_sizes=[24, 32, 48],
    patch_sizes=[3, 4, 6],
    num_windows=[1, 2],
    num_layers=[0, 1, 2],
    num_queries=[3, 6],
)
HOME = Subnet(32, 4, 2, 2, 6)


def supernet(**changes):
    return factory.build_model(search_space=SPACE, **changes)


def test_until_a_sub_net_is_set_it_is_the_ordinary_model():
    model, plain = supernet().eval(), factory.build_model().eval()
    images = torch.randn(2, 3, 32, 32)
    assert home_subnet(model) == HOME
    first = plain(images, mode='tensor')
    for _ in range(2):
        outputs = model(images, mode='tensor')
        for name in ('pred_logits', 'pred_boxes'):
            assert torch.equal(outputs[name], first[name])
        set_subnet(model, Subnet(24, 3, 1, 1, 3))
        set_subnet(model, HOME)


def test_a_batch_of_another_size_is_refused():
    model = supernet()
    set_subnet(model, Subnet(24, 3, 2, 2, 6))
    with pytest.raises(ImageSizeError, match='32 x 32 pixels came to a sub-net of 24'):
        model(torch.randn(1, 3, 32, 32), mode='tensor')


@pytest.mark.parametrize(
    ('space', 'says'),
    [
        (dict(depths=[1]), 'depths'),
        (dict(num_layers=[3]), 'num_layers goes up to 3'),
        (dict(num_queries=[7]), 'num_queries goes up to 7'),
    ],
)
def test_a_space_that_the_model_cannot_have_is_refused(space, says):
    with pytest.raises(SettingError, match=says):
        factory.build_model(search_space={**SPACE, **space})


def test_a_space_may_be_none_and_other_keys_stay_errors():
    assert not hasattr(factory.build_model(search_space=None), 'search_space')
    with pytest.raises(TypeError, match='serch_space'):
        factory.build_model(serch_space=SPACE)
    with pytest.raises(SettingError, match='search_space'):
        set_subnet(factory.build_model(), HOME)


def test_a_sub_net_that_asks_for_more_is_refused():
    with pytest.raises(SettingError, match='at most d2 and q6'):
        set_subnet(supernet(), Subnet(32, 4, 2, 3, 6))


def test_a_deployed_model_stays_the_sub_net_that_it_is():
    model = supernet()
    set_subnet(model, HOME)
    model.switch_to_deploy()
    set_subnet(model, HOME)
    with pytest.raises(DeployedModelError, match='s24-p3-w1-d1-q3'):
        set_subnet(model, Subnet(24, 3, 1, 1, 3))


def test_from_an_official_file_the_home_is_the_file():
    model, plain = supernet(), factory.build_model()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    official = dict(to_official(plain.state_dict()))
    again = factory.build_model()
    for loaded in (model, again):
        loaded.load_state_dict(official, strict=False)
    set_subnet(model, HOME)
    images = torch.randn(1, 3, 32, 32)
    ours, theirs = (x.eval()(images, mode='tensor') for x in (model, again))
    for name in ('pred_logits', 'pred_boxes'):
        assert torch.equal(ours[name], theirs[name])
        assert not torch.equal(
            ours[name], supernet().eval()(images, mode='tensor')[name]
        )
