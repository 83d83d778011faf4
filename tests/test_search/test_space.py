"""Names, rounding and draws of sub-nets."""

import pytest

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.search import SearchSpace, Subnet

PAPER = dict(
    image_sizes=range(320, 961, 64),
    patch_sizes=(8, 10, 12, 16, 20, 24, 32),
    num_windows=(1, 2, 4),
    num_layers=range(7),
    num_queries=(50, 100, 200, 300),
)


def test_a_name_says_the_five_numbers_and_can_be_read():
    subnet = Subnet(480, 12, 2, 3, 200)
    assert subnet.name == 's480-p12-w2-d3-q200'
    assert Subnet.parse(subnet.name) == subnet
    assert subnet.tokens == 1600


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('s480-p12-w2-d3', 'names no sub-net'),
        ('s490-p12-w2-d3-q200', 'take s480 or s504'),
        ('s48-p12-w2-d3-q17', 'take q16 or fewer'),
        ('s48-p0-w2-d3-q17', 'patch_size=0'),
    ],
)
def test_a_name_of_no_sub_net_is_refused(name, says):
    with pytest.raises(SettingError, match=says):
        Subnet.parse(name)


def test_the_grid_of_the_paper_is_rounded_and_has_no_duplicates():
    space = SearchSpace(**PAPER, max_tokens=120 * 120)
    assert len(space.triples) == 222
    for size, patch, windows in space.triples:
        assert size % (patch * windows) == 0
    assert all(subnet.checked() for subnet in space.subnets())
    bounded = SearchSpace(**PAPER)
    assert max(subnet.tokens for subnet in bounded.subnets()) == 3600
    assert len({*bounded.subnets()}) == len([*bounded.subnets()])


def test_a_sub_net_has_no_more_queries_than_tokens():
    space = SearchSpace(**{**PAPER, 'image_sizes': [320], 'patch_sizes': [32]})
    assert {subnet.num_queries for subnet in space.subnets()} == {50, 64, 100}


def test_draws_depend_on_seed_and_step_alone_and_reach_everything():
    space = SearchSpace(**PAPER)
    draws = [space.draw(0, step) for step in range(3000)]
    assert draws == [SearchSpace(**space.as_dict()).draw(0, k) for k in range(3000)]
    assert {draw[:3] for draw in draws} == {*space.triples}
    assert {draw.num_layers for draw in draws} == {6}
    assert draws[:50] != [space.draw(1, step) for step in range(50)]
    assert draws[:50] != [space.draw(0, step, 1) for step in range(50)]


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (dict(patch_sizes=[]), 'patch_sizes'),
        (dict(num_layers=[-1]), 'num_layers'),
        (dict(num_windows=[1.5]), 'num_windows'),
        (dict(num_queries=300), 'num_queries'),
        (dict(max_tokens=9), 'max_tokens=9 leaves nothing'),
    ],
)
def test_a_space_of_nothing_is_refused(change, says):
    with pytest.raises(SettingError, match=says):
        SearchSpace(**{**PAPER, **change})
