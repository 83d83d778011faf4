"""Mistakes in a config or in what it needs, each told in one sentence."""

import ast
import difflib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE, ConfigParsingError
from mmengine.registry import OPTIMIZERS, Registry
from mmengine.runner import Runner

from mmdet_rfdetr.compat import EXTENSION, FULL_MMCV
from mmdet_rfdetr.errors import ExplainedError
from mmdet_rfdetr.shipped import config

OTHER_SETTINGS = (
    *('activation_checkpointing', 'compile', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'sync_bn'),
    'init_weights_for_test_or_val',  # of FlexibleRunner
    *('image_size', 'runner_type', 'tta_model', 'tta_pipeline'),  # of the tools
)
"""Top settings of a config that are read beside the arguments of a runner."""

KNOWN_PACKAGES = {
    **MODULE2PACKAGE,
    **{'PIL': 'pillow', 'cv2': 'opencv-python', 'skimage': 'scikit-image'},
    **{'sklearn': 'scikit-learn', 'yaml': 'pyyaml'},
    'lvis': 'git+https://github.com/lvis-dataset/lvis-api.git',
    'panopticapi': 'git+https://github.com/cocodataset/panopticapi.git',
    **{
        name: name
        for name in (
            *('albumentations', 'bitsandbytes', 'cityscapesscripts', 'clearml'),
            *('dadaptation', 'deepspeed', 'dvclive', 'fairscale', 'future'),
            *('imagecorruptions', 'instaboostfast', 'jsonlines', 'lap', 'lmdb'),
            *('matplotlib', 'memory_profiler', 'mlflow', 'mmpretrain', 'motmetrics'),
            *('neptune', 'nltk', 'numpy', 'onnx', 'onnxruntime', 'openmim', 'pandas'),
            *('peft', 'prettytable', 'psutil', 'pycocoevalcap', 'pycocotools'),
            *('requests', 'safetensors', 'sahi', 'scipy', 'seaborn', 'shapely'),
            *('tensorboard', 'tensorboardX', 'terminaltables', 'tifffile', 'timm'),
            *('torchvision', 'tqdm', 'transformers', 'ultrafast-pycocotools', 'wandb'),
        )
    },
}
"""Modules that this package, MMDetection, mmengine or their users' code import, and
the package that has each. A module that is not here may be one of the user's own, and
a package that happens to have its name a stranger's: no message advises installing it.
"""

INHERITED = (
    'a config that changes the type of what it inherits writes _delete_=True beside '
    'the new type, to leave out the keys of the other one'
)
READERS = ('_file2dict', '_is_lazy_import', '_parse_lazy_import')
"""Functions of mmengine that read the config file ``filename``."""


def read_config(path: str) -> Config:
    """Read a config file and what it inherits from.

    Args:
        path: of the file.

    Raises:
        ExplainedError: naming the file at fault, which may be one that the config
            inherits from, and the line.
    """
    try:
        return Config.fromfile(path)
    except ExplainedError:
        raise
    except Exception as error:  # a config is code, which may raise anything
        message = _import_mistake(error, path) or _file_mistake(error)
        if message is None:
            raise
        raise ExplainedError(message) from error


def _import_mistake(error: Exception, path: str) -> str | None:
    """Say which module of ``custom_imports`` cannot be imported, if that is it."""
    if not isinstance(error, ImportError) or 'custom modules' not in str(error):
        return None
    cause = error.__cause__.__context__ or error.__cause__
    return f'custom_imports of {path}: {missing_package(cause) or cause}'


def _file_mistake(error: Exception) -> str | None:
    """Say where in which config file the mistake is, if it is in one."""
    frames = list(traceback.walk_tb(error.__traceback__))
    files = [
        os.path.abspath(frame.f_locals['filename'])
        for frame, _ in frames
        if frame.f_code.co_name in READERS
    ]
    if not files:
        return None
    file, heirs = files[-1], [name for name in files if name != files[-1]]
    places = [(os.path.abspath(frame.f_code.co_filename), n) for frame, n in frames]
    lines = [number for name, number in places if name == file]
    message = f'{type(error).__name__}: {_text(error)}'
    if not lines and isinstance(error, OSError) and error.errno is not None:
        base = f'the _base_ of {heirs[-1]}, ' if heirs else ''
        todo = 'correct the path'
        if shipped_config(file):
            name = Path(file).name
            todo = f"write _base_ = __import__('mmdet_rfdetr').config({name!r})"
        return f'{base}{file}, cannot be read ({error.strerror}): {todo}.'
    if not lines and isinstance(error, SyntaxError):
        lines, message = [error.lineno], error.msg
    at = f'{file}, line {lines[-1]}' if lines else file
    todo = 'correct the file'
    if isinstance(error, ConfigParsingError):  # the shipped configs are not lazy ones
        todo = f'inherit by _base_ in {files[0]}, and leave out read_base()'
    return f'{at}: {message}: {todo}.'


def _text(error: Exception) -> str:
    """The message, without the quotes that a KeyError adds."""
    return str(error.args[0] if len(error.args) == 1 else error)


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
            f'--cfg-options do not fit the config: {_text(error)}: correct them.'
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


def building_mistake(error: Exception) -> str | None:
    """Say what in a config is wrong that could not be built.

    Args:
        error: what building raised.

    Returns:
        A sentence, or None for an error that is not about the config.
    """
    if str(error) == 'None is not a callable object':
        found = _optimizer(error)
        return found and _unknown_type(found, OPTIMIZERS)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    builders = [
        frame
        for frame in frames
        if Path(frame.f_code.co_filename).name == 'build_functions.py'
    ]
    loaders = [f for f in frames if f.f_code.co_name == 'build_dataloader']
    if not builders and not loaders:
        return None
    frame = (builders or loaders)[-1]
    settings = [
        str(f.f_locals[name])
        for f, name in ((frame, 'cfg'), *((each, 'dataloader') for each in loaders))
        if name in f.f_locals
    ]
    # A part hands some of its keys on: the decoder of a model has no type.
    unknown = re.search("unexpected keyword argument ('.+')", str(error))
    if unknown and f'{unknown[1]}:' in ' '.join(settings):
        return (
            f'{error}: correct this key in the config, or in --cfg-options; '
            f'{INHERITED}.'
        )
    missing = re.search('missing [0-9]+ required .*arguments?:', str(error))
    if missing and _is_called_by(frame, frames):
        todo = 'set this key in the config, or in --cfg-options'
        return f'{error}: {todo}; {INHERITED}.'
    if frame is not frames[-1]:
        return None
    if isinstance(error, KeyError) and 'obj_type' in frame.f_locals:
        return _unknown_type(frame.f_locals['obj_type'], frame.f_locals['registry'])
    if isinstance(error, KeyError):
        return (
            f'nothing can be built from {dict(frame.f_locals["cfg"])}, which has no '
            '"type": correct the name of this setting in the config or in '
            '--cfg-options, or give it a type.'
        )
    return None


def _is_called_by(builder: FrameType, frames: list[FrameType]) -> bool:
    """Whether an error comes from a call that a builder made, not from further down.

    A constructor may hand its arguments on to that of the class it inherits from.
    """
    kind = builder.f_locals.get('obj_cls')
    return all(
        frame.f_code.co_name.startswith('build_')
        or (frame.f_code.co_name == '__init__' and type(frame.f_locals['self']) is kind)
        for frame in frames[frames.index(builder) + 1 :]
    )


def missing_package(error: ImportError) -> str | None:
    """Say what to do about a module that cannot be imported.

    Args:
        error: what importing raised.

    Returns:
        A sentence, or None for an error that is not about a module that is not there.
    """
    if error.name == EXTENSION:
        return f'this needs the compiled operators of full mmcv: {FULL_MMCV}'
    module = (error.name or '').partition('.')[0]
    if module in KNOWN_PACKAGES and not importlib.util.find_spec(module):
        return f'this needs the package {module}: pip install {KNOWN_PACKAGES[module]}'
    if module and not importlib.util.find_spec(module):
        modules = (found.name for found in pkgutil.iter_modules(sys.path))
        hint = nearest(module, modules)
        return (
            f'No module named {module!r}: correct the name'
            f'{f" ({hint})" if hint else ""}, or start in the folder that it lies in '
            f'(this is {Path.cwd()}).'
        )
    advised = re.search(r'pip install (?:-\S+ )*["\']?([\w.+:/-]+)', str(error))
    if advised is None:
        return None
    package = advised[1].rstrip('.')
    # Beside those: the extras of this package, and mmcv.
    if package in (*KNOWN_PACKAGES.values(), 'mmdet_rfdetr', 'mmcv', 'mmcv-lite'):
        return str(error)
    return (
        f'{error} (mmdet_rfdetr does not know {package}: look at what it is before you '
        'install it)'
    )


def _optimizer(error: Exception) -> str | None:
    """The type of the optimizer that mmengine's constructor looked up in vain."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if Path(frame.f_code.co_filename).name == 'default_constructor.py':
            return frame.f_locals['self'].optimizer_cfg['type']
    return None


def _unknown_type(name: str, registry: Registry) -> str:
    known, kind = set(), registry.name
    while registry is not None:
        known |= registry.module_dict.keys()
        registry = registry.parent
    return (
        f'there is no {kind} of type {name!r}: {nearest(name, known) or "correct it"} '
        '(a module that registers more has to be in custom_imports of the config).'
    )


def nearest(name: str, names: Iterable[str]) -> str:
    """``'did you mean X?'``, or nothing where no name is like it."""
    close = difflib.get_close_matches(name, names, n=1)
    return f'did you mean {close[0]}?' if close else ''
