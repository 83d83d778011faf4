"""What the command lines of the tools have in common, before anything is imported.

No tool: the modules beside it import this one first, parse, and look whether the files
that were named are there. It imports nothing beyond Python's own library, so that
``--help`` and a mistyped word are answered at once; the package and what it needs are
imported by what a tool does with its arguments.
"""

import argparse
import difflib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

if (process := sys.modules.get('multiprocessing.process')) and process.parent_process():
    # A worker that was not forked runs its tool's file again, and is then sent parts of
    # MMDetection, which may need the package to be imported.
    import mmdet_rfdetr  # noqa: F401


EXPORTED = '.onnx', '.xml', '.pt2', '.engine'
"""Ends of the names of exported files."""


class Parser(argparse.ArgumentParser):
    """A parser that knows which option a mistyped one is like."""

    def parse_args(self, args=None, namespace=None):
        """Parse, or leave with the exit code 2 and one sentence."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name for name in self._option_string_actions if len(name) > 2]
            typed = unknown[0].partition('=')[0]
            close = difflib.get_close_matches(typed, known, n=1)
            hint = f'; did you mean {close[0]}?' if close else ''
            self.error(f'unrecognized arguments: {" ".join(unknown)}{hint}')
        return parsed


class KeyValues(argparse.Action):
    """Collects texts ``KEY=VALUE``, of which a mistyped one is told in a line."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Add to the list, or leave with the exit code 2."""
        for value in values:
            if not value.partition('=')[0] or '=' not in value:
                parser.error(f'{option_string} takes KEY=VALUE, not {value!r}')
        before = getattr(namespace, self.dest, None) or []
        setattr(namespace, self.dest, [*before, *values])


def tool_parser(description: str, examples: str) -> Parser:
    """Make the parser of a tool, with no arguments yet.

    Args:
        description: One sentence on what the tool does.
        examples: Command lines to copy, and what else is to be known, shown below the
            options.
    """
    return Parser(
        description=description,
        epilog=f'examples:\n{examples}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def config_parser(description: str, examples: str, **config: str) -> Parser:
    """Make a parser with the arguments that say which config is meant.

    Args:
        description: As for :func:`tool_parser`.
        examples: The same.
        **config: ``metavar`` and ``help`` of a config that may be named otherwise.

    Returns:
        The parser; the positional argument ``config`` is its first. What it parses
        suits ``load_config`` of ``mmdet_rfdetr/command_line/running.py``.
    """
    parser = tool_parser(description, examples)
    usual = dict(
        metavar='CONFIG',
        help='path of the config file; mmdet_rfdetr::NAME.py is one of this package',
    )
    parser.add_argument('config', type=config_path, **usual | config)
    add_cfg_options(parser)
    parser.set_defaults(work_dir=None)
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, for a run of this process alone."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        metavar='KEY=VALUE',
        help='change settings of the config, for example '
        'train_cfg.max_epochs=5 model.num_queries=100 '
        'model.backbone.out_indices="[3,6,9,12]"',
    )
    parser.set_defaults(launcher='none', local_rank=0)


def build_parser(description: str, examples: str, **config: str) -> Parser:
    """Make a parser with the arguments that training and testing have in common.

    Args:
        description: As for :func:`tool_parser`.
        examples: The same.
        **config: As for :func:`config_parser`.

    Returns:
        The parser; the positional argument ``config`` is its first.
    """
    parser = config_parser(description, examples, **config)
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help="folder for logs and results (default: the config's work_dir, "
        'or work_dirs/<name of the config>)',
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


def package_folder() -> Path:
    """The folder of the package, which is looked for and not imported."""
    found = importlib.util.find_spec('mmdet_rfdetr')
    if found is None:  # in a checkout that is not installed
        return Path(__file__).resolve().parents[1] / 'mmdet_rfdetr'
    (package,) = map(Path, found.submodule_search_locations)
    return package


def shipped_configs() -> Path:
    """The folder of this package's configs, in a checkout or an installation."""
    # Beside this file may be those of a project that has copied it.
    inside = package_folder() / 'configs'
    return inside if inside.is_dir() else inside.parents[1] / 'configs'


def light_part(name: str) -> ModuleType:
    """Load a file of ``command_line/`` that needs nothing beyond Python's library.

    Args:
        name: of the file; importing it by the package's name would import PyTorch.
    """
    path = package_folder() / 'command_line' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config_path(name: str) -> str:
    """The path of a config file, of which ``mmdet_rfdetr::`` may stand for the folder.

    Raises:
        argparse.ArgumentTypeError: there is no such config in this package.
    """
    package, separator, file = name.partition('::')
    if not separator or package != 'mmdet_rfdetr':
        return name
    folder = shipped_configs()
    if not (folder / file).is_file():
        shipped = ', '.join(sorted(path.name for path in folder.glob('*.py')))
        raise argparse.ArgumentTypeError(
            f'No config {file!r} in {folder}; there are: {shipped}.'
        )
    return str(folder / file)


def checkpoint_path(name: str) -> str:
    """The path of a checkpoint; ``rfdetr://nano`` is an official one on this disk.

    Raises:
        argparse.ArgumentTypeError: it is not there; with the command that gets it.
    """
    if not name.startswith('rfdetr://'):
        return name
    try:
        return str(light_part('official_weights').find(name))
    except FileNotFoundError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def require_file(parser: argparse.ArgumentParser, path: str, kind: str) -> None:
    """Leave with a one-line error unless ``path`` is a file or a link.

    Args:
        parser: The tool's parser, which prints the error.
        path: What the user typed.
        kind: What the file is, for the message.
    """
    if '://' in path or Path(path).expanduser().is_file():
        try:
            checkpoint_path(path)
        except argparse.ArgumentTypeError as error:
            parser.error(str(error))
        return
    shipped = shipped_configs() / Path(path).name
    hint = f' (looked from {Path.cwd()}).'
    if shipped.is_file():
        hint = f'; did you mean {shipped} ?'
    parser.error(f'{kind} {path!r} does not exist{hint}')
