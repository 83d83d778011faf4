"""What the command line tools share: arguments, the config, and running it."""

import argparse
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mmdet.registry import RUNNERS
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from torch import distributed

from mmdet_rfdetr import config
from mmdet_rfdetr.checkpoints import loading
from mmdet_rfdetr.errors import ExplainedError
from mmdet_rfdetr.image_size import image_sizes, set_image_size


def build_parser(description: str, example: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments that training and testing have in common.

    Args:
        description: One sentence on what the tool does.
        example: Command lines to copy, shown below the options.

    Returns:
        The parser; the positional argument ``config`` is its first.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f'examples:\n{example}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', metavar='CONFIG', help='path of the config file')
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help="folder for logs and results (default: the config's work_dir, "
        'or work_dirs/<name of the config>)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config, for example '
        'train_cfg.max_epochs=5 model.num_queries=100 key="[a,b]"',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='what started this process (default: none, a single process)',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints that hold more than weights; code in them can run',
    )
    # Some launchers pass the rank as an argument, with either spelling.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS,
    )
    return parser


def require_file(parser: argparse.ArgumentParser, path: str, kind: str) -> None:
    """Leave with a one-line error unless ``path`` is a file or a link.

    Args:
        parser: The tool's parser, which prints the error.
        path: What the user typed.
        kind: What the file is, for the message.
    """
    if '://' in path or Path(path).expanduser().is_file():
        return
    message = f'{kind} {path!r} does not exist'
    try:
        message += f'; did you mean {config(Path(path).name)} ?'
    except FileNotFoundError:
        message += f' (looked from {Path.cwd()}).'
    parser.error(message)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and apply the common arguments.

    Args:
        args: What :func:`build_parser`'s parser returned.

    Returns:
        The config, with ``launcher`` and ``work_dir`` set.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
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

    These are the errors of this package, files that it does not find, and the loss of
    another process of the run.

    Raises:
        SystemExit: with the message, which gives the exit code 1.
    """
    try:
        yield
    except ExplainedError as error:
        # A worker of a data loader sends its traceback along, the message last.
        message = str(error).rpartition(f'{type(error).__name__}: ')[2]
        raise SystemExit(f'error: {message}') from error
    except (FileNotFoundError, FileExistsError) as error:
        if error.errno is not None:  # of the system: it says nothing of what to do
            raise
        raise SystemExit(f'error: {error}') from error
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise SystemExit(
            'error: another process of this run has ended, or did not answer within '
            'env_cfg.dist_cfg.timeout seconds: its own output says why; continue with '
            f'--resume ({str(error).splitlines()[0]}).'
        ) from error


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether other processes could not be reached; gloo has no class for that."""
    kind = getattr(distributed, 'DistError', ())  # not in every build of torch
    return isinstance(error, kind) or '/gloo/' in str(error)


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
            action(build(cfg))
    except SystemExit as stop:
        # Its traceback would keep the runner, and with it the process group.
        status = stop.code
    finally:
        leave_process_group()
    if status is not None:
        raise SystemExit(status)


def leave_process_group() -> None:
    """End the process group and its threads; does nothing without a group.

    A thread of gloo that has yet to let go of its last piece of work when the
    interpreter shuts down aborts the process. The threads end with the last reference
    to the group, and data-parallel models hold such references, mostly in cycles.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


def enable_auto_scale_lr(parser: argparse.ArgumentParser, cfg: Config) -> None:
    """Let mmengine scale the learning rate to the images of an optimizer step.

    mmengine compares the images of an iteration with ``base_batch_size``; those of a
    step are ``accumulative_counts`` times as many.

    Args:
        parser: reports that the config has no ``base_batch_size``.
        cfg: the config, modified.
    """
    scale = cfg.get('auto_scale_lr') or {}
    if 'base_batch_size' not in scale:
        parser.error(
            '--auto-scale-lr needs the batch size that the learning rate was '
            'chosen for: --cfg-options auto_scale_lr.base_batch_size=16'
        )
    scale.enable = True
    scale.base_batch_size /= cfg.optim_wrapper.get('accumulative_counts', 1)
