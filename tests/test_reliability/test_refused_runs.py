"""Runs that could train nothing, or never end, stop before their first step."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_rfdetr.errors import ExplainedError
from tests.test_training import test_options
from tests.test_training.test_options import semi_supervised

data = test_options.data


@pytest.fixture
def settings(data, tmp_path):
    """A run of one epoch in the loop of the shipped configs, on their data set."""
    made = test_options.cfg(data, tmp_path / tmp_path.name)
    made.train_cfg = dict(type='RFDETRTrainLoop', max_epochs=1)
    made.default_hooks.checkpoint = dict(type='RFDETRCheckpointHook', interval=1)
    return made


@pytest.mark.parametrize(
    ('changed', 'message'),
    (
        ({'train_dataloader.batch_size': 7}, '6 images make no whole batch'),
        ({'train_dataloader.sampler.type': 'InfiniteSampler'}, 'InfiniteSampler never'),
        ({'train_cfg.val_interval': 0}, 'val_interval=0 must be a whole'),
        ({'train_cfg.dynamic_intervals': [(2, 0)]}, 'val_interval=0 must be a whole'),
        ({'optim_wrapper.clip_grad.max_norm': 0}, 'write clip_grad=None'),
        ({'optim_wrapper.clip_grad.max_norm': -1}, 'max_norm=-1 must be above 0'),
    ),
)
def test_settings_that_train_nothing_are_refused_at_once(settings, changed, message):
    settings.train_dataloader.drop_last = True
    settings.optim_wrapper.type = 'RFDETRAmpOptimWrapper'
    settings.merge_from_dict(changed)
    with pytest.raises(ExplainedError, match=message):
        Runner.from_cfg(settings).train()


def test_an_epoch_of_images_drawn_from_several_sources_is_refused(settings):
    semi_supervised(settings).train_cfg = dict(type='RFDETRTrainLoop', max_epochs=1)
    settings.default_hooks.pop('precision', None)
    with pytest.raises(ExplainedError, match='of GroupMultiSourceSampler never ends'):
        Runner.from_cfg(Config(settings.to_dict())).train()
