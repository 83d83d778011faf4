"""Mistakes in a config or in what it needs, each told in one sentence."""

import ast
import difflib
import importlib.util
import inspect
import os
import re
from collections.abc import Iterable
from pathlib import Path

import mmdet.registry
from mmdet.registry import OPTIMIZERS, RUNNERS
from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError
from mmengine.registry import Registry
from mmengine.runner import Runner

from ..compat.operators import EXTENSION, FULL_MMCV
from ..errors import ExplainedError
from ..shipped import config

OTHER_SETTINGS = (
    *('activation_checkpointing', 'compile', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'sync_bn'),
    'init_weights_for_test_or_val',  # of FlexibleRunner
    *('image_size', 'runner_type', 'tta_model', 'tta_pipeline'),  # of the tools
)
"""Top settings of a config that are read beside the arguments of a runner."""


def read_config(path: str) -> Config:
    """Read a config file and what it inherits from.

    What goes wrong while a config computes keeps Python's traceback, which names the
    file and the line.

    Args:
        path: of the file.

    Raises:
        ExplainedError: a file is missing or cannot be parsed, or a module of
            ``custom_imports`` cannot be imported.
    """
    files = f'{path}, or a config that it inherits from'
    try:
        return Config.fromfile(path)
    except SyntaxError as error:
        line = f'{error.msg} in line {error.lineno}, {(error.text or "").strip()!r}'
        raise ExplainedError(f'{files}: {line}: correct the file.') from error
    except ConfigParsingError as error:  # the shipped configs are not lazy ones
        raise ExplainedError(
            f'{files}: {error}: inherit by _base_, and leave out read_base().'
        ) from error
    except FileNotFoundError as error:
        if error.filename is None:  # one of ours, which says what there is
            raise
        name, todo = Path(error.filename).name, 'correct the path'
        if shipped_config(name):
            todo = f"write _base_ = __import__('mmdet_rfdetr').config({name!r})"
        raise ExplainedError(
            f'{files}: there is no {error.filename}: {todo}.'
        ) from error
    except ImportError as error:
        cause = error.__cause__ and (error.__cause__.__context__ or error.__cause__)
        if 'custom modules' not in str(error) or cause is None:
            raise
        reason = missing_package(cause) or cause
        raise ExplainedError(f'custom_imports of {path}: {reason}') from error


def shipped_config(path: str) -> str | None:
    """The path of the shipped config that has the name of another file, if any."""
    try:
        return config(Path(path).name)
    except FileNotFoundError:
        return None


def merge_options(options: dict, cfg: Config) -> None:
    """Change settings of a config, and refuse options that nothing would read.

    Args:
        options: of ``--cfg-options``; a key names a setting, with dots.
        cfg: the config, modified.

    Raises:
        ExplainedError: one begins with a name that neither the config nor the runner
            knows, changes a variable that the config file has used already, or goes
            into a value that has no keys.
    """
    _check_options(options, cfg)
    try:
        cfg.merge_from_dict(options)
    except (AssertionError, KeyError, TypeError) as error:
        raise ExplainedError(
            f'--cfg-options do not fit the config: {error.args[0]}: correct them.'
        ) from error


def _check_options(options: dict, cfg: Config) -> None:
    kind = options.get('runner_type', cfg.get('runner_type'))
    kind = RUNNERS.get(kind) if isinstance(kind, str) else kind
    runner = kind if inspect.isclass(kind) else Runner
    arguments = inspect.signature(runner.__init__).parameters
    read = {*arguments, *OTHER_SETTINGS} - {'self', 'cfg'}
    own = set(cfg) - _used_names(cfg)
    for option in options:
        name = option.partition('.')[0]
        if name in read or name in own:
            continue
        if name in cfg:
            raise ExplainedError(
                f'--cfg-options {option}: the config file has used this variable '
                'already: set the keys that it went into, for example '
                'train_cfg.max_epochs or train_dataloader.dataset.data_root.'
            )
        raise ExplainedError(
            f'--cfg-options {option}: no setting {name!r}; '
            f'{nearest(name, {*read, *own}) or "correct or remove it"} (what your own '
            'code reads has to stand in the config file first).'
        )


def _used_names(cfg: Config) -> set[str]:
    """Variables that the config file, or one it inherits from, computes with."""
    names = set()
    # The text of each file follows its path.
    for line in cfg.text.splitlines():
        if line.endswith('.py') and os.path.isabs(line) and os.path.isfile(line):
            for node in ast.walk(ast.parse(Path(line).read_text(encoding='utf-8'))):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                    names.add(node.id)
                elif isinstance(node, ast.Attribute):  # _base_.name
                    names.add(node.attr)
    return names


def check_optimizer(cfg: Config) -> None:
    """Refuse an optimizer that is not registered, for which mmengine has no sentence.

    Raises:
        ExplainedError: naming one that is like it.
    """
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    name = optimizer.get('type')
    if isinstance(name, str) and OPTIMIZERS.get(name) is None:
        registries = [OPTIMIZERS, OPTIMIZERS.parent]
        raise ExplainedError(_unknown_type(name, 'optimizer', registries))


def unknown_key(error: TypeError, cfg: Config) -> str | None:
    """Say which key of a config is none of the part that it was given to.

    Args:
        error: what building raised.
        cfg: what was built.

    Returns:
        A sentence, or None for an error about something that the config has not set.
    """
    found = re.search("unexpected keyword argument ('.+?')", str(error))
    if found is None or f'{found[1]}:' not in repr(cfg._cfg_dict):
        return None
    return (
        f'{error}: correct this key in the config, or in --cfg-options; a config that '
        'changes the type of what it inherits writes _delete_=True beside the new type.'
    )


def unknown_type(error: KeyError) -> str | None:
    """Say which type of a config is in no registry, or which setting has none.

    Args:
        error: what building raised.

    Returns:
        A sentence, or None for an error that is not about a type.
    """
    if 'must contain the key "type"' in str(error):
        setting = str(error.args[0]).rpartition('but got ')[2].splitlines()[0]
        return (
            f'nothing can be built from {setting}, which has no "type": correct the '
            'name of this setting in the config or in --cfg-options, or give it a type.'
        )
    found = re.search(r'(\S+) is not in the \S+::(.+?) registry', str(error))
    if found is None:
        return None
    name, kind = found.groups()
    # MMDetection's module has its own registries and, by other names, their parents.
    registries = [
        registry
        for registry in vars(mmdet.registry).values()
        if isinstance(registry, Registry) and registry.name == kind
    ]
    return _unknown_type(name.strip('"\''), kind, registries)


def unknown_rule(error: ValueError) -> str | None:
    """Say which metric of a config has a name that does not tell if more is better.

    Args:
        error: what building the hook raised that stops a run, or keeps its best
            checkpoint.

    Returns:
        A sentence, or None for an error about something else.
    """
    found = re.search('Cannot infer the rule for (?:key )?(.*), thus', str(error))
    return found and (
        f'whether more or less of {found[1]!r} is better is not known: correct this '
        "name of a metric (monitor or save_best; boxes have 'coco/bbox_mAP'), or set "
        "rule='greater' or rule='less' beside it."
    )


def _unknown_type(name: str, kind: str, registries: list[Registry]) -> str:
    known = {each for registry in registries for each in registry.module_dict}
    return (
        f'there is no {kind} of type {name!r}: {nearest(name, known) or "correct it"} '
        '(a module that registers more has to be in custom_imports of the config).'
    )


def missing_package(error: ImportError) -> str | None:
    """Say what to do about a module that is not there.

    No package is advised: one that has the module's name may be a stranger's.

    Args:
        error: what importing raised.

    Returns:
        A sentence, or None for an error that is not about a module that is not there.
    """
    if error.name == EXTENSION:
        return f'this needs the compiled operators of full mmcv: {FULL_MMCV}'
    module = (error.name or '').partition('.')[0]
    if not module or importlib.util.find_spec(module):
        return None
    return (
        f'No module named {module!r}: install the package that it belongs to, correct '
        f'the name, or start in the folder that it lies in (this is {Path.cwd()}).'
    )


def nearest(name: str, names: Iterable[str]) -> str:
    """``'did you mean X?'``, or nothing where no name is like it."""
    close = difflib.get_close_matches(name, names, n=1)
    return f'did you mean {close[0]}?' if close else ''
