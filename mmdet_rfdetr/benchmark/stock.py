"""MMDetection as it is, without this package; run by its path.

With arguments it runs MMDetection's own ``tools/train.py``, without it imports models,
data sets and metrics. What mmcv-lite lacks gets a stand-in, or nothing would run.
"""

import functools
import importlib.machinery
import importlib.util
import runpy
import sys
from pathlib import Path


def stand_in_for_operators() -> None:
    """Let ``mmcv.ops`` be imported where mmcv has no compiled operators."""
    import mmcv

    def operator(name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        return functools.partial(str, 'n/a')

    if importlib.util.find_spec('mmcv._ext') is None:
        spec = importlib.machinery.ModuleSpec('mmcv._ext', None)
        sys.modules[spec.name] = mmcv._ext = importlib.util.module_from_spec(spec)
        mmcv._ext.__getattr__ = operator


if __name__ == '__main__':
    stand_in_for_operators()
    if sys.argv[1:]:
        (package,) = importlib.util.find_spec('mmdet').submodule_search_locations
        sys.argv[0] = str(Path(package, '.mim', 'tools', 'train.py'))
        runpy.run_path(sys.argv[0], run_name='__main__')
    else:
        import mmdet.datasets
        import mmdet.evaluation
        import mmdet.models  # noqa: F401
