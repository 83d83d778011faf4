"""A run with all that a resumed run could get wrong, in a process that can die."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from tests.factory import ANNOTATIONS, LOAD, RESIZE, SIDE, project_config

EPOCHS = 3
# What a clock or the machine says; everything else has to be the same.
MEASURED = ('time', 'data_time', 'memory')


def config(data, work_dir, **changes):
    """Two workers, augmentation, multi-scale, dropout, accumulation, EMA."""
    workers = dict(num_workers=2, persistent_workers=True)
    augmentation = dict(
        type='RFDETRBatchMultiScale',
        image_size=SIDE,
        size_divisor=8,
        offsets=(-1, 0, 1),
    )
    best = dict(save_best='coco/bbox_mAP', rule='greater')
    stopping = dict(monitor='coco/bbox_mAP', rule='greater', patience=10)
    cfg = project_config(
        data,
        work_dir,
        model=dict(
            backbone=dict(drop_path_rate=0.2),
            decoder=dict(dropout=0.1),
            data_preprocessor=dict(batch_augments=[augmentation]),
        ),
        train_dataloader=workers,
        val_dataloader=workers,
        train_cfg=dict(type='RFDETRTrainLoop', max_epochs=EPOCHS),
        optim_wrapper=dict(optimizer=dict(lr=1e-3), accumulative_counts=2),
        default_hooks=dict(
            checkpoint=dict(type='RFDETRCheckpointHook', max_keep_ckpts=2, **best),
            ema=dict(type='RFDETREMAHook', decay=0.9, tau=2),
        ),
        custom_hooks=[dict(type='EarlyStoppingHook', **stopping)],
        env_cfg=dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)),
        log_level='WARNING',
    )
    cfg.train_dataloader.dataset.pipeline = [
        LOAD,
        ANNOTATIONS,
        dict(type='RandomFlip', prob=0.5),
        dict(type='RFDETRResize', sizes=(40, 48, 64), keep_ratio=True),
        dict(type='RFDETRRandomSquareCrop', min_side=24, max_side=40),
        RESIZE,
        dict(type='PhotoMetricDistortion'),
        dict(type='PackDetInputs'),
    ]
    cfg.merge_from_dict(changes)
    return cfg


def short_config(data, folder):
    """One epoch without workers."""
    cfg = config(data, folder)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.max_epochs = 1
    return cfg


class Dying(Hook):
    """Send a signal at the n-th event of a run, or in a validation.

    Events: before and after a training iteration and a validation iteration, before
    and after an optimizer step, and before and after a file reaches the disk.
    """

    # Before the checkpoint hook: it has to see the signal in the same iteration.
    priority = 'LOW'

    def __init__(self, event, number=signal.SIGKILL, kill=os.kill):
        self.event, self.number, self.kill = event, number, kill
        self.count, self.writes = 0, []
        fsync = os.fsync

        def counted_fsync(descriptor):
            self.happens()
            self.writes.append(self.count)
            fsync(descriptor)
            self.happens()

        os.fsync = counted_fsync

    def happens(self, *args, **kwargs):
        self.count += 1
        if self.count == self.event:
            self.kill(os.getpid(), self.number)

    before_train_iter = after_train_iter = after_val_iter = happens

    def before_val_iter(self, runner, *args, **kwargs):
        self.happens()
        if self.event == 'validation':
            self.kill(os.getpid(), self.number)

    def before_train(self, runner):
        optimizer = runner.optim_wrapper.optimizer
        optimizer.register_step_pre_hook(self.happens)
        optimizer.register_step_post_hook(self.happens)


def train(cfg, event=None, number=signal.SIGKILL, kill=os.kill):
    """Train in this process, which gets a signal at an event.

    With ``os.killpg`` its workers get the signal too, as from a terminal.
    """
    if kill is os.killpg:
        os.setpgid(0, 0)
    torch.set_num_threads(1)
    runner = Runner.from_cfg(cfg)
    hook = Dying(event, number, kill)
    runner.register_hook(hook)
    runner.train()
    events = dict(count=hook.count, writes=hook.writes)
    Path(cfg.work_dir, 'events.json').write_text(json.dumps(events))


def train_in_child(*args):
    """Train in a process of its own; return its exit code, negative for a signal."""
    child = multiprocessing.get_context('fork').Process(target=train, args=args)
    child.start()
    child.join()
    return child.exitcode


def result(folder):
    """All that has to be the same at the end of two runs."""
    checkpoint = load_checkpoint_file((folder / 'last_checkpoint').read_text())
    scalars = checkpoint['message_hub']['log_scalars']
    info = checkpoint['message_hub']['runtime_info']
    best = folder / os.path.basename(info['best_ckpt'])
    return dict(
        weights=checkpoint['state_dict'],
        ema=checkpoint['ema_state_dict'],
        optimizer=checkpoint['optimizer'],
        schedule=checkpoint['param_schedulers'],
        log={
            name: entry
            for name, entry in scalars.items()
            if name.split('/')[1] not in MEASURED
        },
        best_score=info['best_score'],
        best=load_checkpoint_file(best)['state_dict'],
        state=checkpoint['training_state'],
        files=sorted(path.name for path in folder.glob('*.pth')),
    )


def differences(one, other, path=''):
    """Paths of what is not byte for byte the same in two nested results."""
    if type(one) is not type(other):
        return [path]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f'{path}: {sorted(map(str, one.keys() ^ other.keys()))}']
        return [
            found
            for key in one
            for found in differences(one[key], other[key], f'{path}/{key}')
        ]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [path]
        return [
            found
            for number, pair in enumerate(zip(one, other, strict=True))
            for found in differences(*pair, f'{path}/{number}')
        ]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [path]
    return [] if one == other else [path]
