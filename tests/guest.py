"""What a process of others looks like, to be compared before and after an import."""

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import types
import warnings

import cv2
import torch
from PIL import Image, ImageFile

PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'torch', 'numpy', 'pycocotools', 'lvis')


def import_everything():
    """Import MMDetection; mmcv-lite gets the operators that it lacks for that time."""
    stub = types.ModuleType('mmcv._ext')
    stub.__file__ = __file__  # or torch takes it for a built-in
    stub.__getattr__ = lambda name: print
    try:
        importlib.import_module('mmcv._ext')
    except ImportError:
        sys.modules['mmcv._ext'] = stub
    import mmcv
    import mmdet.apis
    import mmdet.engine
    import mmdet.models.dense_heads.dense_test_mixins
    import mmdet.utils.large_image  # noqa: F401

    if sys.modules.get('mmcv._ext') is stub:
        for name in [name for name in sys.modules if name.startswith('mmcv.ops')]:
            del sys.modules[name]
        del sys.modules['mmcv._ext'], mmcv.ops


def settings():
    """Settings of the process, by name."""
    return {
        'warnings.filters': list(warnings.filters),
        'sys.meta_path': list(sys.meta_path),
        'sys.path_hooks': list(sys.path_hooks),
        'sys.path': list(sys.path),
        'sys.excepthook': sys.excepthook,
        'os.environ': dict(os.environ),
        'signals': [signal.getsignal(number) for number in signal.valid_signals()],
        'logging': (logging.root.level, list(logging.root.handlers)),
        'start_method': multiprocessing.get_start_method(allow_none=True),
        'torch.threads': (torch.get_num_threads(), torch.get_default_dtype()),
        'torch.grad': (torch.is_grad_enabled(), torch.is_anomaly_enabled()),
        'torch.matmul': torch.get_float32_matmul_precision(),
        'torch.deterministic': torch.are_deterministic_algorithms_enabled(),
        'torch.safe_globals': set(torch.serialization.get_safe_globals()),
        'torch.sharing': torch.multiprocessing.get_sharing_strategy(),
        'torch.random': torch.get_rng_state().tolist(),
        'cv2.threads': (cv2.getNumThreads(), cv2.ocl.useOpenCL()),
        'PIL': (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        'PIL.formats': (sorted(Image.OPEN), sorted(Image.EXTENSION)),
    }


def attributes():
    """Functions, classes, their attributes, and registries, by dotted name."""
    found = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.partition('.')[0] not in PACKAGES or module is None:
            continue
        for name, value in list(vars(module).items()):
            if name == '__builtins__':
                continue
            found[f'{module_name}.{name}'] = value
            if isinstance(value, type) and value.__module__ == module_name:
                for key, attribute in list(vars(value).items()):
                    found[f'{module_name}.{name}.{key}'] = attribute
    return found


def children_of_registries():
    """Names of the registries below each registry of mmengine."""
    import mmengine.registry

    return {
        name: sorted(registry._children)
        for name, registry in vars(mmengine.registry).items()
        if isinstance(registry, mmengine.registry.Registry)
    }


def changed(before, after):
    """Names of what is another object, or has another value."""
    return sorted(
        name
        for name, value in before.items()
        if name not in after
        or (after[name] is not value and not _equal(after[name], value))
    )


def _equal(first, second):
    plain = (dict, list, tuple, set, str, int, float, bool, type(None))
    return type(first) is type(second) and isinstance(first, plain) and first == second
