"""Which packages are installed and where, and the configs of this one."""

import functools
import importlib.metadata
import importlib.util
import os
import sys

from ..shipped import shipped_path


def replace_pkg_resources() -> str | None:
    """Let mmengine find installed packages without ``pkg_resources``.

    mmengine asks it which packages are installed and where, for ``mmdet::`` config
    names and model names. setuptools 82 removed it, and from 80.9 on importing it
    warns; the standard library answers the same two questions.

    Returns:
        The reason, or None where ``pkg_resources`` works silently.
    """
    from mmengine.utils import digit_version, package_utils

    if importlib.util.find_spec('pkg_resources') is not None:
        setuptools = digit_version(importlib.metadata.version('setuptools'))
        if setuptools < digit_version('80.9'):
            return None
    for replacement in (is_installed, get_installed_path):
        name = replacement.__name__
        original = getattr(package_utils, name)
        # Other modules of mmengine import the names, some of them before us.
        for module_name, module in list(sys.modules.items()):
            of_mmengine = module_name.partition('.')[0] == 'mmengine'
            if of_mmengine and vars(module).get(name) is original:
                setattr(module, name, replacement)
    return 'setuptools has no pkg_resources, or one that warns; mmengine uses it.'


def is_installed(package: str) -> bool:
    """Tell whether a distribution or a module of this name is installed.

    Args:
        package: Name of a distribution (``mmcv-lite``) or of a module (``mmcv``).
    """
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(package)
        return spec is not None and spec.origin is not None
    return True


def get_installed_path(package: str) -> str:
    """Find the folder of an installed package.

    Args:
        package: Name of a module (``mmdet``) or of the distribution that holds it.

    Returns:
        The folder that holds the package's ``__init__.py``.

    Raises:
        ModuleNotFoundError: no regular package of this name is installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None and is_installed(package):
        top_level = importlib.metadata.distribution(package).read_text('top_level.txt')
        spec = top_level and importlib.util.find_spec(top_level.split()[0])
    if not spec or spec.origin is None:
        # mmengine asks for what stands before :: in a config, a misspelt name as well.
        raise ModuleNotFoundError(
            f'Package {package!r} is not installed: correct the name.'
        )
    return os.path.dirname(spec.origin)


def find_shipped_configs() -> str | None:
    """Let a config inherit from ``mmdet_rfdetr::rfdetr_nano_coco.py``.

    mmengine has such names for configs of packages that lie in folders, beside an
    index of all models.

    Returns:
        The reason; the gap is there with every supported mmengine.
    """
    from mmengine.config import Config

    original = Config._get_cfg_path

    @functools.wraps(original)
    def get_cfg_path(cfg_path, filename):
        path = shipped_path(cfg_path)
        return original(cfg_path, filename) if path is None else (path, None)

    Config._get_cfg_path = staticmethod(get_cfg_path)
    return 'mmengine finds no configs in the package mmdet_rfdetr.'
