"""The command line tools, run as a user runs them on a project of toy size."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from signal import SIGINT, raise_signal

import mmengine
import pytest
import rfdetr_arguments
import torch
from mmdet.datasets import BaseDetDataset
from mmengine.config import Config

from mmdet_rfdetr import compat
from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.command_line import running as cli
from mmdet_rfdetr.errors import (
    CheckpointError,
)
from tests.fixtures import REPOSITORY
from tests.interpreter import free_port, run, run_code


def test_train_writes_checkpoint_and_metrics(tool, toy_project):
    tool('train.py', 'mine.py')
    folder = toy_project / 'work_dirs' / 'mine'
    assert (folder / 'epoch_1.pth').is_file()
    (log,) = folder.glob('*/*.log')
    text = log.read_text()
    assert 'Epoch(train) [1][2/2]' in text
    assert 'eta:' in text
    assert 'coco/bbox_mAP:' in text


def test_ctrl_c_while_data_and_model_are_built_needs_no_traceback(
    tool, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(BaseDetDataset, 'full_init', lambda _: raise_signal(SIGINT))
    with pytest.raises(SystemExit) as stop:
        tool('train.py', 'mine.py', '--work-dir', tmp_path)
    assert stop.value.code == 75
    (line,) = capsys.readouterr().err.splitlines()
    assert 'Interrupted' in line and '--resume' in line


def test_train_resumes_from_the_last_checkpoint(toy_checkpoint, tool, capsys, tmp_path):
    copy = tmp_path / 'work'
    copy.mkdir()
    (copy / 'epoch_1.pth').write_bytes(toy_checkpoint.read_bytes())
    (copy / 'last_checkpoint').write_text(str(copy / 'epoch_1.pth'))
    options = ['--cfg-options', 'train_cfg.max_epochs=2']
    tool('train.py', 'mine.py', '--work-dir', copy, '--resume', *options)
    printed = capsys.readouterr().out
    assert 'resumed epoch: 1' in printed
    assert 'Epoch(train) [1]' not in printed
    assert (copy / 'epoch_2.pth').is_file()


def test_test_evaluates_draws_and_dumps(toy_checkpoint, tool, capsys, tmp_path):
    dump = tmp_path / 'predictions.pkl'
    arguments = ['--out', dump, '--show-dir', tmp_path / 'drawn']
    tool(
        'test.py',
        'mine.py',
        toy_checkpoint,
        '--work-dir',
        tmp_path / 'work',
        *arguments,
    )
    printed = capsys.readouterr().out
    assert 'coco/bbox_mAP:' in printed
    assert 'WARNING' not in printed
    drawn = sorted(path.name for path in (tmp_path / 'drawn').iterdir())
    assert drawn == ['0.png', '1.png', '2.png', '3.png']
    predictions = mmengine.load(dump)
    assert [len(each['pred_instances']['scores']) for each in predictions] == [10] * 4


def run_distributed(name, *arguments, cwd):
    command = ['bash', REPOSITORY / 'tools' / name, *arguments]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    return run(command, cwd=cwd, PORT=free_port(), PATH=path)


@pytest.fixture(scope='module')
def trained_together(toy_project, tmp_path_factory):
    """The folder of a run in two processes, and what they printed."""
    folder = tmp_path_factory.mktemp('together')
    arguments = ['mine.py', '2', '--work-dir', folder]
    trained = run_distributed('dist_train.sh', *arguments, cwd=toy_project)
    assert trained.returncode == 0, trained.stderr
    return folder, trained


@pytest.mark.long
def test_two_processes_train_together(trained_together):
    folder, trained = trained_together
    # Four pictures, two processes, two pictures a batch: one step.
    assert 'Epoch(train) [1][1/1]' in trained.stdout
    assert 'warning' not in (trained.stdout + trained.stderr).lower()
    assert (folder / 'epoch_1.pth').is_file()


@pytest.mark.long
def test_two_processes_test_together(trained_together, toy_project):
    folder, trained = trained_together
    arguments = ['mine.py', folder / 'epoch_1.pth', '2', '--work-dir', folder]
    tested = run_distributed('dist_test.sh', *arguments, cwd=toy_project)
    assert tested.returncode == 0, tested.stderr
    assert 'Epoch(test) [1/1]' in tested.stdout
    scores = [
        re.search(r'coco/bbox_mAP: (\S+)', output).group(1)
        for output in (trained.stdout, tested.stdout)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh'])
def test_launchers_say_how_they_are_called(name):
    script = REPOSITORY / 'tools' / name
    result = subprocess.run(['bash', script], capture_output=True, text=True)
    assert result.returncode == 2
    assert f'tools/{name} CONFIG' in result.stderr
    asked = subprocess.run(['bash', script, '--help'], capture_output=True, text=True)
    assert (asked.returncode, asked.stdout) == (0, result.stderr)


# Arguments


# The others are for people who change the package.
TOOLS = ['train', 'test', 'check_dataset', 'convert_checkpoint', 'benchmark']
TOOLS += ['predict', 'replay_non_finite', 'weights', 'verify', 'convert_dataset']


@pytest.mark.parametrize('name', TOOLS)
def test_help_shows_an_example(name, tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        tool(f'{name}.py', '--help')
    assert stopped.value.code == 0
    assert f'examples:\n  python tools/{name}.py ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train.py', 'configs/rfdetr_nano_coco.py'], 'did you mean'),
        (['train.py', 'nothing.py'], "config 'nothing.py' does not exist (looked from"),
        (['train.py', 'mine.py', '--resume', 'no.pth'], "checkpoint 'no.pth' does not"),
        (['test.py', 'nothing.py', 'no.pth'], "config 'nothing.py' does not exist"),
        (['test.py', 'mine.py', 'no.pth'], "checkpoint 'no.pth' does not exist"),
        (
            ['test.py', 'mine.py', 'mine.py', '--out', 'x.json'],
            '--out must end in .pkl',
        ),
        (['train.py', 'mine.py', '--cfg-options', 'resume'], "KEY=VALUE, not 'resume'"),
        (['train.py', 'mine.py', '--wrok-dir=x'], 'did you mean --work-dir?'),
        (['benchmark.py', 'mine.py', '--warmup', '-1'], '--warmup must be 0 or more'),
        (['benchmark.py', 'mine.py', '--images', '0'], '--images must be 1 or more'),
        (['benchmark.py', *['mine.py'] * 3], 'one or two configs, not 3'),
        (['benchmark.py', 'mine.py', '--data', 'nowhere'], 'there are no .jpg files'),
        (['benchmark.py', 'mine.py', '--device', 'cdua'], '--device cdua: name cpu'),
        (
            ['benchmark.py', 'mine.py', '--out-dir', 'mine.py/below'],
            'mine.py/below cannot be written (Not a directory)',
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, message, tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        tool(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_checkpoint_may_be_a_link(tool, built):
    tool('test.py', 'mine.py', 'https://example.org/weights.pth')
    assert built[0].load_from == 'https://example.org/weights.pth'


def test_work_dir_is_argument_then_config_then_name_of_the_config(tool, built):
    option = ['--cfg-options', 'work_dir=of_config']
    tool('train.py', 'mine.py')
    tool('train.py', 'mine.py', *option)
    tool('train.py', 'mine.py', '--work-dir', 'of_argument', *option)
    folders = [cfg.work_dir for cfg in built]
    assert folders == ['work_dirs/mine', 'of_config', 'of_argument']


def test_cfg_options_reach_the_config(tool, built):
    tool(
        'train.py', 'mine.py', '--cfg-options', 'model.num_queries=7', 'env_cfg.a=[a,b]'
    )
    assert built[0].model.num_queries == 7
    assert built[0].env_cfg.a == ['a', 'b']


def test_own_code_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / 'code_of_mine.py').touch()
    (tmp_path / 'mine.py').write_text("custom_imports = dict(imports='code_of_mine')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    args = rfdetr_arguments.build_parser('', '').parse_args(['mine.py'])
    assert cli.load_config(args).work_dir == 'work_dirs/mine'
    # Last: it hides no installed package.
    assert sys.path[-1] == str(tmp_path)


def test_image_size_option_moves_everything_that_depends_on_it(tool, built):
    tool('train.py', 'mine.py', '--cfg-options', 'image_size=96')
    assert built[0].model.backbone.pos_embed_size == 96 // 16


def test_amp_asks_for_the_wrapper_as_mmdet_does(tool, built):
    tool('train.py', 'mine.py', '--amp')
    assert built[0].optim_wrapper.type == 'AmpOptimWrapper'
    assert built[0].optim_wrapper.loss_scale == 'dynamic'


def test_auto_scale_lr_is_switched_on(tool, built):
    tool('train.py', 'mine.py')
    tool('train.py', 'mine.py', '--auto-scale-lr')
    assert [cfg.auto_scale_lr.enable for cfg in built] == [False, True]


def test_auto_scale_lr_needs_a_batch_size(tool, capsys):
    option = [
        '--cfg-options',
        'auto_scale_lr._delete_=True',
        'auto_scale_lr.enable=True',
    ]
    with pytest.raises(SystemExit):
        tool('train.py', 'mine.py', '--auto-scale-lr', *option)
    assert 'auto_scale_lr.base_batch_size=16' in capsys.readouterr().err


def test_resume_takes_a_checkpoint_or_looks_for_one(tool, built, tmp_path):
    arguments = ['mine.py', '--work-dir', tmp_path]
    loaded = ['--cfg-options', 'load_from=start.pth']
    tool('train.py', *arguments)
    tool('train.py', *arguments, '--resume', 'mine.py', *loaded)
    (tmp_path / 'last_checkpoint').touch()
    tool('train.py', *arguments, '--resume', *loaded)
    assert [(cfg.resume, cfg.load_from) for cfg in built] == [
        (False, None),
        (True, 'mine.py'),
        (True, None),
    ]


def test_resume_without_a_checkpoint_begins_as_without_the_option(
    tool, toy_checkpoint, capsys, tmp_path
):
    options = [f'load_from={toy_checkpoint}', 'val_cfg=None', 'val_dataloader=None']
    options += ['val_evaluator=None', 'default_hooks.checkpoint.save_best=None']
    arguments = ['mine.py', '--work-dir', tmp_path, '--resume', '--cfg-options']
    tool('train.py', *arguments, *options)
    printed = capsys.readouterr().out
    assert f'resume in {tmp_path}: training begins with {toy_checkpoint}.' in printed
    assert f'Load checkpoint from {toy_checkpoint}' in printed
    assert 'Epoch(train) [1]' in printed


def test_a_shipped_config_is_named_as_those_of_mmdetection(tool, built, capsys):
    tool('train.py', 'mmdet_rfdetr::rfdetr_nano_coco.py')
    assert built[0].work_dir == 'work_dirs/rfdetr_nano_coco'
    with pytest.raises(SystemExit):
        tool('train.py', 'mmdet_rfdetr::rfdetr_nan.py')
    assert 'there are: rfdetr' in capsys.readouterr().err


def test_show_turns_the_drawing_on(tool, built):
    tool('test.py', 'mine.py', 'mine.py', '--show', '--wait-time', '0.5')
    hook = built[0].default_hooks.visualization
    assert (hook.draw, hook.show, hook.wait_time) == (True, True, 0.5)


def test_tta_wraps_the_model_and_mirrors_the_pictures(tool, built):
    tool('test.py', 'mine.py', 'mine.py', '--tta')
    cfg = built[0]
    assert cfg.model.type == 'RFDETRMirrorTTA'
    assert cfg.model.module.type == 'RFDETR'
    flips, (pack,) = cfg.test_dataloader.dataset.pipeline[-1].transforms
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert {'img_id', 'flip', 'flip_direction'} <= set(pack.meta_keys)


def test_tta_by_nms_merges_with_a_compiled_operator(
    toy_checkpoint, tool, capsys, tmp_path
):
    arguments = ['mine.py', toy_checkpoint, '--tta', '--work-dir', tmp_path]
    arguments += ['--cfg-options', 'tta_model.type=DetTTAModel']
    arguments += ['tta_model.tta_cfg.nms.type=nms', 'tta_model.tta_cfg.max_per_img=9']
    if 'stub_compiled_ops' in compat.active():
        with pytest.raises(SystemExit, match='DetTTAModel.*mmcv-lite does not'):
            tool('test.py', *arguments)
        assert 'Load checkpoint' not in capsys.readouterr().out
    else:
        tool('test.py', *arguments)
        assert 'coco/bbox_mAP:' in capsys.readouterr().out


def test_tiles_wrap_the_model_and_what_follows_the_loader(tool, built, capsys):
    options = ['--tile', '640', '--overlap', '0.1', '--whole']
    tool('test.py', 'mine.py', 'mine.py', *options)
    cfg = built[0]
    assert cfg.model.type == 'RFDETRTiledModel'
    assert cfg.model.module.type == 'RFDETR'
    load, tiles = cfg.test_dataloader.dataset.pipeline
    assert load.type == 'LoadImageFromFile'
    assert (tiles.tile, tiles.overlap, tiles.whole) == (640, 0.1, True)
    assert [step.type for step in tiles.transforms][0] == 'Resize'
    with pytest.raises(SystemExit):
        tool('test.py', 'mine.py', 'mine.py', '--tile', '9', '--tta')
    assert '--tile and --tta' in capsys.readouterr().err


def test_tta_takes_a_model_that_merges_without_compiled_operators(tool, built):
    tool(
        'test.py', 'mine.py', 'mine.py', '--tta', '--cfg-options', 'tta_model.type=Own'
    )
    assert built[0].model.type == 'Own'


def test_trust_reaches_the_loader(tool, monkeypatch):
    trusted = []
    monkeypatch.setattr(
        cli,
        'run',
        lambda cfg, action, trust_checkpoint: trusted.append(trust_checkpoint),
    )
    tool('test.py', 'mine.py', 'mine.py')
    tool('test.py', 'mine.py', 'mine.py', '--trust-checkpoint')
    assert trusted == [False, True]


def test_trusted_run_loads_what_an_ordinary_one_refuses(monkeypatch, tmp_path):
    path = tmp_path / 'strange.pth'
    weights = dict(w=torch.zeros(1))
    torch.save(dict(state_dict=weights, meta=runpy.run_path), path)  # a function

    def load(_):
        return load_checkpoint_file(str(path))

    monkeypatch.setattr(cli.Runner, 'from_cfg', lambda cfg: cfg)
    cli.run(Config(), load, trust_checkpoint=True)
    with pytest.raises((CheckpointError, SystemExit)):
        cli.run(Config(), load, trust_checkpoint=False)


# The end

TRAIN_IN_A_GROUP = """
import os
import torch
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel
from mmdet_rfdetr.command_line import running as cli

def threads():
    tasks = '/proc/self/task'
    return [open(f'{tasks}/{task}/comm').read().strip() for task in os.listdir(tasks)]

def train():
    parallel = MMDistributedDataParallel(
        module=torch.nn.Linear(1, 1), broadcast_buffers=False)
    parallel.runner = [parallel]  # a cycle, as between a runner and its hooks
    parallel(torch.ones(1)).sum().backward()

init_dist('pytorch', backend='nccl')
train()
assert any('gloo' in name for name in threads()), threads()
cli.leave_process_group()
assert not any('gloo' in name for name in threads()), threads()
"""


@pytest.mark.long
@pytest.mark.skipif(
    not os.path.exists('/proc/self/task'), reason='threads have no list'
)
def test_no_thread_of_the_process_group_meets_the_end_of_python():
    one_rank = dict(
        RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', MASTER_PORT=0
    )
    ended = run_code(TRAIN_IN_A_GROUP, **one_rank)
    assert ended.returncode == 0, ended.stderr


def test_the_average_is_switched_off_like_a_hook_of_mmengine(tool, tmp_path, capsys):
    options = ['default_hooks.ema=None', 'default_hooks.timer=None', 'val_cfg=None']
    options += ['val_dataloader=None', 'val_evaluator=None']
    options += ['default_hooks.checkpoint.save_best=None']
    arguments = ['mine.py', '--work-dir', tmp_path, '--cfg-options', *options]
    tool('train.py', *arguments)
    assert not {'RFDETREMAHook', 'IterTimerHook'} & set(
        re.findall(r'\) (\w+Hook) ', capsys.readouterr().out)
    )
    assert 'ema_state_dict' not in torch.load(
        tmp_path / 'epoch_1.pth', weights_only=False
    )
