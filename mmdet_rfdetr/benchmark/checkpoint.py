"""Saving and resuming a run, beside ``torch.save`` and ``torch.load`` of its file."""

import ctypes
import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import Runner

from .clock import Clock


class _StopError(Exception):
    """Leaves a run that has been resumed."""


def checkpoint(
    cfg: Config, args: SimpleNamespace, clock: Clock
) -> tuple[Callable[[], None], dict]:
    """Write the checkpoint of a run, as its hook does, and resume another from it.

    The run has made one optimizer step, so that all moments are there. Resuming goes
    from the path to the run that could take its next step: reading, all checks, and
    copying into model, moving average, optimizer and schedule. With ``args.plain`` the
    file that was written goes through ``torch.save`` and ``torch.load`` alone. Either
    begins without memory to spare, as a process that has just started to resume.

    Args:
        cfg: config of the run.
        args: options of the side.
        clock: gets the phases ``save`` and ``resume``.
    """
    folder = tempfile.mkdtemp()
    runner = _build_run(cfg, args, folder)
    _prepare(runner)
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    hook._save_checkpoint(runner)
    path = Path(hook.last_ckpt)
    facts = dict(images=1, bytes=path.stat().st_size)
    # What the process holds meanwhile is the same on both sides.
    content = torch.load(path, weights_only=True)

    def work() -> None:
        _give_back_memory()
        with clock.phase('save'):
            hook._save_checkpoint(runner)
        resumed = _build_run(cfg, args, folder, resume=True)
        load = resumed.load_or_resume

        def timed() -> None:
            _give_back_memory()
            with clock.phase('resume'):
                load()

        _start(resumed, timed)

    def plain_work() -> None:
        _give_back_memory()
        with clock.phase('save'):
            torch.save(content, path)
        _give_back_memory()
        with clock.phase('resume'):
            torch.load(path, weights_only=True)

    chosen = plain_work if args.plain else work
    weakref.finalize(chosen, shutil.rmtree, folder, ignore_errors=True)
    return chosen, facts


def _build_run(
    cfg: Config, args: SimpleNamespace, folder: str, *, resume: bool = False
) -> Runner:
    """The config's run on the pictures of the benchmark, without a validation."""
    cfg = Config(cfg.to_dict())
    annotations = Path(args.data, 'annotations.json')
    names = [c['name'] for c in json.loads(annotations.read_text())['categories']]
    cfg.train_dataloader.dataset.update(
        data_root='',
        ann_file=str(annotations),
        data_prefix=dict(img=args.data),
        metainfo=dict(classes=names),
    )
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    for key in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{key}'] = cfg[f'test_{key}'] = None
    # The checkpoint that is written again and again is no old one.
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=-1, save_best=None)
    cfg.update(work_dir=folder, resume=resume, log_level='ERROR')
    runner = Runner.from_cfg(cfg)
    runner.logger.setLevel(logging.ERROR)
    return runner


def _start(runner: Runner, then: Callable[[], None]) -> None:
    """Go into the training of a run as far as its weights are loaded."""

    def load_or_resume() -> None:
        then()
        raise _StopError

    runner.load_or_resume = load_or_resume
    with suppress(_StopError):
        runner.train()


def _prepare(runner: Runner) -> None:
    """Make one step of random gradients, as if in training."""
    _start(runner, lambda: None)
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook | EMAHook):
            hook.before_train(runner)
    for parameter in runner.model.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    runner.optim_wrapper.step()
    runner.optim_wrapper.zero_grad()
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.ema_model.update_parameters(hook.src_model)


def _give_back_memory() -> None:
    """Give freed memory back to the system, where that can be asked for."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
