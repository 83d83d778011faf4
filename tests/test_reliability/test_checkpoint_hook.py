"""A checkpoint is complete or not there, however a run ends."""

import multiprocessing
import os
import resource
import signal
from contextlib import redirect_stdout

import pytest
import torch
from mmengine.hooks import Hook

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.errors import CheckpointError, ExplainedError, SettingError
from tests.toy import Scripted, runner

HOOK = dict(
    type='RFDETRCheckpointHook',
    interval=1,
    max_keep_ckpts=1,
    save_best='coco/bbox_mAP',
    rule='greater',
)


def build(folder, scores=(0.1, 0.3, 0.2), hooks=(), **hook):
    return runner(
        folder,
        [dict(type='RFDETREMAHook'), *hooks],
        epochs=len(scores),
        metric=Scripted(scores),
        default_hooks=dict(checkpoint=dict(HOOK, **hook)),
    )


def files(folder):
    """Names of the files, without the config that every run writes down."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.suffix != '.py'
    )


def last(folder):
    return (folder / 'last_checkpoint').read_text()


class Saves(Hook):
    """The checkpoints that hold a training state."""

    def __init__(self):
        self.count = 0

    def before_save_checkpoint(self, runner, checkpoint):
        self.count += 'optimizer' in checkpoint


@pytest.mark.parametrize(
    'interval, scores', [(1, (0.1, 0.3, 0.2, 0.3)), (2, (0.1, 0.2, 0.3, 0.1))]
)
def test_mmengines_loop_gets_mmengines_files(tmp_path, interval, scores):
    names, saves = {}, {}
    for kind in ('CheckpointHook', 'RFDETRCheckpointHook'):
        folder, hook = tmp_path / kind, Saves()
        settings = dict(type=kind, max_keep_ckpts=2, interval=interval)
        build(folder, scores, [hook], **settings).train()
        names[kind], saves[kind] = files(folder), hook.count
        assert last(folder) == str(folder / 'epoch_4.pth')
    assert names['RFDETRCheckpointHook'] == names['CheckpointHook']
    assert f'best_coco_bbox_mAP_epoch_{interval + 1}.pth' in names['CheckpointHook']
    assert saves['RFDETRCheckpointHook'] == saves['CheckpointHook']


def test_torch_reads_a_checkpoint_without_permissions(tmp_path):
    build(tmp_path, (0.1,)).train()
    for name in ('epoch_1.pth', 'best_coco_bbox_mAP_epoch_1.pth'):
        checkpoint = torch.load(tmp_path / name, weights_only=True)
        assert checkpoint['meta']['epoch'] == 1
        assert 'weight' in checkpoint['state_dict']


def test_what_is_not_plain_is_left_out_and_named(tmp_path):
    run = build(tmp_path, (0.1,))
    run.message_hub.update_info('odd', object())
    lines = []
    run.logger.warning = lines.append
    run.train()
    assert any('leaves out odd (builtins.object)' in line for line in lines)
    torch.load(tmp_path / 'epoch_1.pth', weights_only=True)


def test_a_resumed_run_knows_its_log_and_its_best(tmp_path):
    build(tmp_path, (0.3,)).train()
    run = build(tmp_path, (0.1, 0.2))
    run._resume = True
    run.val_loop.evaluator.metrics[0].scores = iter([0.2])
    run.train()
    rates, counts = run.message_hub.get_scalar('train/lr').data
    assert len(rates) == len(counts) == 20
    assert run.message_hub.get_info('best_score') == 0.3
    assert files(tmp_path) == [
        'best_coco_bbox_mAP_epoch_1.pth',
        'epoch_2.pth',
        'last_checkpoint',
    ]


def test_weights_are_loaded_after_a_resumed_run(tmp_path):
    build(tmp_path, (0.3,)).train()
    run = build(tmp_path, (0.1, 0.2), save_best=None)
    run._resume = True
    run.train()
    weights = {name: x + 1 for name, x in run.model.state_dict().items()}
    torch.save({'state_dict': weights, 'meta': {}}, tmp_path / 'weights.pth')
    run.load_checkpoint(str(tmp_path / 'weights.pth'))
    assert torch.equal(run.model.weight, weights['weight'])


def test_the_best_of_a_run_that_goes_on_elsewhere_stays(tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    build(first, (0.3,)).train()
    run = build(second, (0.1, 0.2))
    run._resume, run._load_from = True, str(first / 'epoch_1.pth')
    run.val_loop.evaluator.metrics[0].scores = iter([0.4])
    run.train()
    assert 'best_coco_bbox_mAP_epoch_1.pth' in files(first)
    assert 'best_coco_bbox_mAP_epoch_2.pth' in files(second)


def test_the_best_may_be_written_again_under_its_name(tmp_path):
    run = build(tmp_path, (0.1,))
    run.train()
    run.call_hook('after_val_epoch', metrics={'coco/bbox_mAP': 0.2})
    assert run.message_hub.get_info('best_score') == 0.2
    assert 'best_coco_bbox_mAP_epoch_1.pth' in files(tmp_path)


def test_a_misspelt_option_is_refused_when_the_run_is_built(tmp_path):
    with pytest.raises(ExplainedError, match="no option 'max_keep_ckpt'"):
        build(tmp_path, max_keep_ckpt=3)


def test_validation_alone_saves_no_best(tmp_path):
    build(tmp_path, (0.3,)).val()
    assert not [name for name in files(tmp_path) if 'best' in name]


class LimitFileSize(Hook):
    """Let no file grow, as on a full disk, from the second epoch on."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))


def train_on_a_full_disk(folder, connection):
    """Train in a process of its own: the limit would hold for pytest's output too."""
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere):
        run = build(folder, hooks=[LimitFileSize()])
        for handler in list(run.logger.handlers):  # no log can be written either
            run.logger.removeHandler(handler)
            handler.close()
        try:
            run.train()
        except CheckpointError as error:
            connection.send(str(error))
        else:
            connection.send('no error')


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context('fork').Process(
        target=train_on_a_full_disk, args=(tmp_path, sender)
    )
    child.start()
    sender.close()
    message = receiver.recv()
    child.join()
    assert child.exitcode == 0
    assert f'{tmp_path}/epoch_2.pth cannot be written' in message
    assert f'{tmp_path}/epoch_1.pth' in message and '--resume' in message
    assert files(tmp_path) == [
        'best_coco_bbox_mAP_epoch_1.pth',
        'epoch_1.pth',
        'last_checkpoint',
    ]
    assert load_checkpoint_file(last(tmp_path))['meta']['epoch'] == 1


def test_a_best_checkpoint_outlives_a_failed_successor(tmp_path, monkeypatch):
    replace = os.replace

    def fail(source, target):
        if str(target).endswith('best_coco_bbox_mAP_epoch_2.pth'):
            raise OSError(28, 'No space left on device')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(CheckpointError):
        build(tmp_path).train()
    assert (tmp_path / 'best_coco_bbox_mAP_epoch_1.pth').is_file()


def test_an_impossible_folder_is_told_before_the_first_step(tmp_path):
    (tmp_path / 'file').touch()
    run = build(tmp_path / 'work', out_dir=str(tmp_path / 'file'))
    with pytest.raises(CheckpointError, match='cannot be made.*choose another'):
        run.train()
    assert run.iter == 0


def test_a_misspelt_metric_names_those_there_are(tmp_path):
    with pytest.raises(SettingError, match="'coco/mAP'.*choose one of coco/bbox_mAP"):
        build(tmp_path, save_best='coco/mAP').train()


def test_leftovers_are_removed(tmp_path):
    for name in ('.epoch_1.pth.7.tmp', '.last_checkpoint.7.tmp', '.mine.tmp'):
        (tmp_path / name).touch()
    build(tmp_path, (0.1,)).train()
    assert [name for name in files(tmp_path) if name.startswith('.')] == ['.mine.tmp']


DISK_OPERATIONS = ('fsync', 'replace', 'unlink', 'remove')


def train_until(operation, folder):
    """Train, and die with the n-th operation that touches a file, half done."""
    count = 0

    def dying(original, *args):
        nonlocal count
        count += 1
        if count == operation:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    for name in DISK_OPERATIONS:
        original = getattr(os, name)
        setattr(os, name, lambda *args, _original=original: dying(_original, *args))
    build(folder).train()
    (folder / 'count').write_text(str(count))


def in_child(*args):
    child = multiprocessing.get_context('fork').Process(target=train_until, args=args)
    child.start()
    child.join()
    return child.exitcode


@pytest.mark.parametrize('operation', range(1, 50, 5))
def test_killed_while_a_file_is_written(operation, tmp_path):
    exitcode = in_child(operation, tmp_path)
    if exitcode == 0:
        assert int((tmp_path / 'count').read_text()) < operation
        assert operation > 24, 'the kills have to reach the end of the run'
        return
    assert exitcode == -signal.SIGKILL
    for name in files(tmp_path):
        if name.endswith('.pth'):
            load_checkpoint_file(tmp_path / name)
    if (tmp_path / 'last_checkpoint').exists():
        checkpoint = load_checkpoint_file(last(tmp_path))
        assert checkpoint['optimizer']
    else:
        assert operation <= 6  # the second file is the pointer
    run = build(tmp_path)
    run._resume = True
    run.train()
    assert run.epoch == 3
    assert load_checkpoint_file(last(tmp_path))['meta']['epoch'] == 3
    assert not [name for name in files(tmp_path) if name.startswith('.')]
