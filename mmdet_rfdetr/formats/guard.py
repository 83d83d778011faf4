"""While a tool runs, no file that it reads runs code, whatever reads the file.

MMDetection's tools unpickle results, annotations and proposals. NumPy and YAML files
can hold objects as well, and before torch 2.6 ``torch.load`` makes any.
"""

import importlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
import yaml
from mmengine.fileio.handlers import PickleHandler, YamlHandler
from mmengine.fileio.io import file_handlers

from ..checkpoints.loading import is_trusted, read_file
from ..errors import HOW_TO_TRUST, CheckpointError, UntrustedCheckpointError
from .unpickler import (
    CLASSES,
    FUNCTIONS,
    RefusedError,
    Unpickler,
    harmless_classes,
    refuse_endless,
)

_guarded = ContextVar('guarded', default=False)

# Results of MMDetection. Imported when a file names one: nothing here needs them.
_STRUCTURES = (
    'mmengine.structures.base_data_element.BaseDataElement',
    'mmengine.structures.instance_data.InstanceData',
    'mmengine.structures.pixel_data.PixelData',
    'mmdet.structures.det_data_sample.DetDataSample',
    'mmdet.structures.bbox.horizontal_boxes.HorizontalBoxes',
    'mmdet.structures.mask.structures.BitmapMasks',
    'mmdet.structures.mask.structures.PolygonMasks',
)


def _storage(raw: bytes):
    """A tensor's numbers in a pickle that is no checkpoint."""
    if not raw.startswith(b'\x80\x02'):  # an archive, which might grow in memory
        raise RefusedError('torch.storage._load_from_bytes')
    return torch.load(io.BytesIO(raw), weights_only=True)


class _ResultsUnpickler(Unpickler):
    """Makes the structures of MMDetection's results as well.

    Not in checkpoints: they answer to a key as a dict does, and hold what is looked for
    in dicts.
    """

    functions = FUNCTIONS | {'torch.storage._load_from_bytes': _storage}

    def __init__(self, file, **options) -> None:
        super().__init__(file, **options)
        self.classes = dict(CLASSES)

    def find_class(self, module: str, name: str):
        path = f'{module}.{name}'
        if path in _STRUCTURES:
            self.classes[path] = getattr(importlib.import_module(module), name)
        return super().find_class(module, name)


def load_pickle(file, **options):
    """Read a pickle that is no checkpoint, such as results that a tool wrote.

    Args:
        file: opened for reading bytes.
        **options: As for :class:`pickle.Unpickler`.

    Raises:
        RefusedError: it holds what is not on the list; nothing in it has run.
        pickle.UnpicklingError: it is damaged, as many other errors say as well.
    """
    content = file.read()
    with harmless_classes(len(content)):
        limited = type('Unpickler', (_ResultsUnpickler,), {'limit': len(content)})
        loaded = limited(io.BytesIO(content), **options).load()
    refuse_endless(loaded, len(content))
    return loaded


@contextmanager
def no_code_in_files() -> Iterator[None]:
    """Read files without running code from them, except inside of trust_checkpoint.

    It holds for mmengine's ``load``, ``numpy.load`` and ``torch.load``.
    """
    if _guarded.get():
        yield
        return
    token = _guarded.set(True)
    handlers = dict(file_handlers)
    pickles, texts = _SafePickleHandler(), _SafeYamlHandler()
    file_handlers.update(pkl=pickles, pickle=pickles, yaml=texts, yml=texts)
    of_numpy, of_torch = np.load, torch.load
    np.load, torch.load = _numpy_load(of_numpy), _torch_load(of_torch)
    try:
        yield
    finally:
        np.load, torch.load = of_numpy, of_torch
        file_handlers.update(handlers)
        _guarded.reset(token)


class _SafePickleHandler(PickleHandler):
    def load_from_fileobj(self, file, **kwargs):
        if is_trusted():
            return super().load_from_fileobj(file, **kwargs)
        with _explained('A pickle', Exception):  # damaged bytes can end in any
            return load_pickle(file, **kwargs)


class _SafeYamlHandler(YamlHandler):
    def load_from_fileobj(self, file, **kwargs):
        if is_trusted():
            return super().load_from_fileobj(file, **kwargs)
        # With tuples, which mmengine's configs hold; without objects.
        kwargs['Loader'] = yaml.FullLoader
        with _explained('A YAML file', Exception):
            loaded = super().load_from_fileobj(file, **kwargs)
            refuse_endless(loaded, file.tell())
            return loaded


def _numpy_load(original: Callable) -> Callable:
    def load(file, mmap_mode=None, allow_pickle=False, **kwargs):
        allow_pickle = allow_pickle and is_trusted()
        try:
            return original(file, mmap_mode, allow_pickle, **kwargs)
        except ValueError as error:
            if 'allow_pickle' not in str(error):
                raise
            raise UntrustedCheckpointError(_refusal(file, 'pickled objects')) from error

    return load


def _torch_load(original: Callable) -> Callable:
    def load(file, map_location=None, *args, **kwargs):
        if is_trusted():
            kwargs.setdefault('weights_only', False)
        elif not isinstance(file, str | os.PathLike):
            kwargs['weights_only'] = True
        elif not kwargs.get('weights_only'):
            loaded = read_file(file, map_location)
            meta = loaded.get('meta') if isinstance(loaded, dict) else None
            if isinstance(meta, dict) and 'config' in meta:
                # Tools that upgrade old checkpoints run it.
                raise UntrustedCheckpointError(
                    _refusal(file, 'a config, which is code')
                )
            return loaded
        return original(file, map_location, *args, **kwargs)

    return load


@contextmanager
def _explained(what: str, damage: type[Exception]) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        raise UntrustedCheckpointError(_refusal(what, error)) from error
    except damage as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f'{what} cannot be read ({reason}): if it is damaged, get it again. '
            f'{HOW_TO_TRUST}'
        ) from error


def _refusal(what, unneeded) -> str:
    return (
        f'{what} was refused and nothing in it has run: data do not need {unneeded}. '
        f'{HOW_TO_TRUST}'
    )
