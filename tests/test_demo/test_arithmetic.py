"""How much the README's first command computes: what its user waits for."""

import inspect

import pytest
from mmengine.config import Config
from torch.utils.flop_counter import FlopCounterMode

from mmdet_rfdetr.demo import RFDETRDemoDataset
from tests.fixtures import REPOSITORY
from tests.test_demo import golden_training as golden

BUDGET = 16.9e12
"""FLOP of all training steps: 45 % of 2,500 steps of 15 GFLOP, as it once was."""


@pytest.fixture(scope='module')
def cfg():
    return Config.fromfile(REPOSITORY / 'configs' / 'rfdetr_demo.py')


def test_a_whole_run_stays_within_its_budget(cfg):
    size = cfg.train_dataloader.batch_size
    steps = cfg.num_train // size * cfg.train_cfg.max_epochs
    model, wrapper = golden.build(cfg)
    with FlopCounterMode(display=False) as counter:
        model.train_step(golden.batch(range(size)), wrapper)
    assert 0 < steps * counter.get_total_flops() < BUDGET


def test_it_shows_all_of_rf_detr(cfg):
    model, _ = golden.build(cfg)
    grid = golden.SIDE // model.backbone.patch_size
    assert model.backbone.num_windows > 1
    assert {*range(len(model.backbone.blocks))} - {*model.backbone.out_indices}
    assert model.num_queries < grid**2, 'the two-stage selection has to select'
    assert model.num_groups > 1
    assert len(model.decoder.layers) > 1


def test_the_pictures_have_not_become_fewer_or_smaller(cfg):
    settings = inspect.signature(RFDETRDemoDataset).parameters
    dataset = cfg.val_dataloader.dataset
    for name, least in dict(picture_size=128, num_val=200).items():
        assert dataset.get(name, settings[name].default) >= least
    resize = next(step for step in dataset.pipeline if step.type == 'RFDETRResize')
    assert resize.image_size >= 128
