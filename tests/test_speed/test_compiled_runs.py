"""A compiled model in runs: what a checkpoint, the EMA and a resumed run see of it."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from mmdet_rfdetr.checkpoints.loading import load_checkpoint_file
from tests.test_precision.project import project_config, run
from tests.test_precision.recorder import expected, recorded

PARTS = ['backbone', 'neck', 'query_selection', 'decoder', 'bbox_head']


@pytest.fixture(autouse=True)
def traced(monkeypatch):
    """Trace the parts and call their operators as they are, as in the plain run."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(
        nn.Module,
        'compile',
        lambda part, dynamic, options: compile_module(
            part, backend='eager', dynamic=dynamic
        ),
    )
    torch._dynamo.reset()
    counters.clear()


def config(pictures, folder, **model):
    cfg = project_config(pictures, folder)
    cfg.custom_hooks = [dict(type='RFDETREMAHook')]
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    cfg.model.update(model)
    return cfg


@pytest.mark.long
@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not')
def test_training_validation_and_resuming(pictures, tmp_path):
    """The numbers, the names in the file and the precision are those of a plain run."""
    plain = config(pictures, tmp_path / 'plain')
    run(plain, 'train')
    with recorded() as seen:
        runner = run(config(pictures, tmp_path / 'compiled', compile={}), 'train')
    assert set(seen) == {expected(torch.bfloat16)}
    for part in PARTS:
        assert getattr(runner.model, part)._compiled_call_impl is not None
    assert counters['stats']['unique_graphs'] >= 2 * len(PARTS)
    assert not counters['graph_break']

    file = 'iter_2.pth'
    before, after = (
        load_checkpoint_file(str(tmp_path / name / file), 'cpu')
        for name in ('plain', 'compiled')
    )
    for weights in ('state_dict', 'ema_state_dict'):
        assert list(before[weights]) == list(after[weights])
        for name, value in before[weights].items():
            torch.testing.assert_close(after[weights][name], value, msg=name)

    resumed = config(pictures, tmp_path / 'resumed', compile={})
    resumed.resume, resumed.load_from = True, str(tmp_path / 'plain' / file)
    resumed.train_cfg.max_iters = 4
    assert run(resumed, 'train').iter == 4
