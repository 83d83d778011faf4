"""What the command line tools share: the config, and running it."""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from mmdet.registry import RUNNERS
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from torch import distributed

from ..checkpoints import loading
from ..errors import EXIT_INTERRUPTED, ExplainedError
from ..image_size import image_sizes, set_image_size
from .config_errors import (
    check_optimizer,
    merge_options,
    missing_package,
    read_config,
    unknown_key,
    unknown_rule,
    unknown_type,
)


def key_values(texts: list[str] | None) -> dict:
    """What ``--cfg-options`` says, by mmengine's rules.

    Args:
        texts: ``KEY=VALUE``, as the parsers of the tools collect them.

    Returns:
        Value of each key; empty for None.

    Raises:
        ExplainedError: brackets of a value do not close.
    """
    found = argparse.Namespace(options={})
    try:
        DictAction([], 'options')(None, found, texts)
    except AssertionError as error:
        raise ExplainedError(f'--cfg-options: {error}: correct it.') from error
    return found.options


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and apply the common arguments.

    Args:
        args: What a parser returned that ``tools/rfdetr_arguments.py`` made.

    Returns:
        The config, with ``launcher`` and ``work_dir`` set.

    Raises:
        SystemExit: with one sentence, if the config or an option cannot be used.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # custom_imports, as with python -m
    with explained_errors():
        cfg = read_config(args.config)
        cfg.launcher = args.launcher
        if args.cfg_options is not None:
            merge_options(key_values(args.cfg_options), cfg)
        for name, hook in (cfg.get('default_hooks') or {}).items():
            if hook is None:
                # mmengine takes None for its own hooks only; this one does nothing.
                cfg.default_hooks[name] = dict(type='mmengine.hooks.Hook')
        if 'image_size' in cfg and image_sizes(cfg) != {cfg.image_size}:
            # A config or --cfg-options changed the one number that all others follow.
            set_image_size(cfg, cfg.image_size)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    return cfg


@contextmanager
def explained_errors() -> Iterator[None]:
    """End the process with the message of an error that needs no traceback.

    Files that are read meanwhile run no code where ``loading.GUARDS`` say so.

    These are the errors of this package, files that it does not find, mistakes in a
    config, packages that are not installed, and the loss of another process of the run;
    and Ctrl-C, where a training loop does not take it for a request to save first.

    Raises:
        SystemExit: with the message, which gives the exit code 1; after Ctrl-C with the
            code 75.
    """
    try:
        with ExitStack() as guards:
            for guard in loading.GUARDS:
                guards.enter_context(guard())
            yield
    except KeyboardInterrupt:
        print(
            'Interrupted: start it again; --resume goes on from the last checkpoint of '
            'a training, if there is one.',
            file=sys.stderr,
        )
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:
        message = _explanation(error)
        if message is None:
            raise
        raise SystemExit(f'error: {message}') from error


def _explanation(error: Exception) -> str | None:
    """One sentence on an error, or None for one that needs its traceback."""
    if isinstance(error, ExplainedError):
        # A worker of a data loader sends its traceback along, the message last.
        return str(error).rpartition(f'{type(error).__name__}: ')[2]
    if isinstance(error, FileNotFoundError | FileExistsError):
        # One of the system says nothing of what to do.
        return str(error) if error.errno is None else None
    if isinstance(error, KeyError):
        return unknown_type(error)
    if isinstance(error, ImportError):
        return missing_package(error)
    if isinstance(error, ValueError):
        return unknown_rule(error)
    # gloo has no class for processes that cannot be reached, and not every build of
    # torch has the class of the other backends.
    is_gloo = isinstance(error, RuntimeError) and '/gloo/' in str(error)
    if is_gloo or isinstance(error, getattr(distributed, 'DistError', ())):
        return (
            'another process of this run has ended, or did not answer within '
            'env_cfg.dist_cfg.timeout seconds: its own output says why; continue with '
            f'--resume ({str(error).splitlines()[0]}).'
        )
    return None


def run(
    cfg: Config, action: Callable[[Runner], object], *, trust_checkpoint: bool
) -> None:
    """Build the config's runner and do something with it.

    An error that explains itself ends the process with its message and the exit code
    1, without a traceback.

    Args:
        cfg: A whole config; ``runner_type`` may name another runner.
        action: Called with the runner, for example ``Runner.train``.
        trust_checkpoint: Whether checkpoints may run code while they are loaded.
    """
    trust = loading.trust_checkpoint if trust_checkpoint else nullcontext
    build = RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    status = None
    try:
        with explained_errors(), trust():
            if cfg.get('work_dir'):
                make_folder(cfg.work_dir)
            check_optimizer(cfg)
            try:
                action(build(cfg))
            except TypeError as error:
                if message := unknown_key(error, cfg):
                    raise ExplainedError(message) from error
                raise
    except SystemExit as stop:
        # Its traceback would keep the runner, and with it the process group.
        status = stop.code
    finally:
        leave_process_group()
    if status is not None:
        raise SystemExit(status)


def make_folder(path: str | Path) -> None:
    """Make a folder for results, before the work whose results it is for.

    Raises:
        ExplainedError: it cannot be made or written to.
    """
    reason = 'no permission'
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        writable, reason = False, error.strerror
    if not writable:
        raise ExplainedError(
            f'{path} cannot be written ({reason}): choose another folder.'
        )


def check_target(path: str | Path) -> None:
    """See that a file can be written, before the work whose result it is for.

    Raises:
        ExplainedError: it cannot.
    """
    path = Path(path)
    make_folder(path.parent)
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        raise ExplainedError(f'{path} cannot be written: choose another file.')


def leave_process_group() -> None:
    """End the process group and its threads; does nothing without a group.

    A thread of gloo that has yet to let go of its last piece of work when the
    interpreter shuts down aborts the process. The threads end with the last reference
    to the group, and data-parallel models hold such references, mostly in cycles.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


def prepare_auto_scale_lr(
    parser: argparse.ArgumentParser, cfg: Config, *, enable: bool
) -> None:
    """Switch the scaling of the learning rate on, and see that it knows its base.

    Args:
        parser: reports that the config has no ``base_batch_size``.
        cfg: the config, modified.
        enable: scale also where ``auto_scale_lr.enable`` of the config does not say so.
    """
    scale = cfg.get('auto_scale_lr') or {}
    if not (enable or scale.get('enable')):
        return
    if 'base_batch_size' not in scale:
        parser.error(
            'auto_scale_lr needs the batch size that the learning rate was '
            'chosen for: --cfg-options auto_scale_lr.base_batch_size=16'
        )
    scale.enable = True


def resume_latest(cfg: Config) -> None:
    """Have a run go on from the last checkpoint of its work folder, if there is one.

    Without one the run begins as the config says, with ``load_from``. So a job that
    may be killed at any time can always be started with the same command.

    Args:
        cfg: the config, modified.
    """
    # mmengine writes this file beside its checkpoints and looks for nothing else.
    cfg.resume = Path(cfg.work_dir, 'last_checkpoint').is_file()
    if cfg.resume:
        cfg.load_from = None


def train(runner: Runner) -> None:
    """Train; a learning rate that is scaled follows the images of an optimizer step.

    mmengine compares the images of an iteration with ``base_batch_size``; those of a
    step are ``accumulative_counts`` times as many.

    Args:
        runner: with its optimizer wrapper still to be built.
    """
    scale = getattr(runner, 'auto_scale_lr', None)  # FlexibleRunner hides its own
    if scale and scale.get('enable'):
        accumulation = runner.optim_wrapper.get('accumulative_counts', 1)
        # Not in the config, which is written to the work folder and may be used again.
        runner.auto_scale_lr = dict(
            scale, base_batch_size=scale['base_batch_size'] / accumulation
        )
    runner.train()


def __getattr__(name: str) -> object:
    """The parsers, which copies of earlier tools look for here."""
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from . import arguments

    return getattr(arguments, name)
