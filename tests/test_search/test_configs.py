"""The two configs that are shipped."""

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_rfdetr import config
from mmdet_rfdetr.image_size import image_sizes
from mmdet_rfdetr.search import SearchSpace, Subnet
from mmdet_rfdetr.search.export import subnet_config
from mmdet_rfdetr.search.supernet import home_subnet


@pytest.mark.parametrize(
    ('name', 'triples', 'home'),
    [
        ('rfdetr_search_demo.py', 14, 's64-p8-w1-d2-q16'),
        ('rfdetr_search_coco.py', 90, 's576-p16-w2-d4-q300'),
    ],
)
def test_a_shipped_space(name, triples, home):
    cfg = Config.fromfile(config(name))
    space = SearchSpace(**cfg.model.search_space)
    assert len(space.triples) == triples
    if 'demo' in name:  # the other one takes a second
        assert home_subnet(MODELS.build(cfg.model)).name == home
    home = Subnet.parse(home)
    assert home in [*space.subnets()]
    for subnet in (home, next(space.subnets()), [*space.subnets()][-1]):
        exported = subnet_config(cfg, subnet)
        assert image_sizes(exported) == {subnet.image_size}
        # Nothing else would resize it.
        train = exported.train_dataloader.dataset.pipeline
        assert [step.get('offsets', (0,)) for step in train] == [(0,)] * len(train)
        assert exported.model.data_preprocessor.batch_augments is None


def test_the_home_of_coco_is_medium():
    medium = Config.fromfile(config('rfdetr_medium_coco.py'))
    cfg = Config.fromfile(config('rfdetr_search_coco.py'))
    exported = subnet_config(cfg, Subnet.parse('s576-p16-w2-d4-q300'))
    ours, theirs = (x.model.to_dict() for x in (exported, medium))
    for model in (ours, theirs):
        model['data_preprocessor'].pop('batch_augments')
    assert ours == theirs
