"""What mmengine, MMDetection and torch warn of, and nobody can change."""

import copy
import functools
import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .packages import version_of
from .running import is_rfdetr


@contextmanager
def without_file_client_warnings() -> Iterator[None]:
    """Keep mmengine from warning about a deprecated class that only itself makes.

    It makes a ``FileClient`` for every checkpoint, to be compatible with settings that
    nobody gave, and making one logs two deprecation warnings.
    """
    if importlib.util.find_spec('mmengine.fileio.file_client') is None:
        yield
        return

    from mmengine.fileio import file_client

    # These two warnings are all that the module ever logs.
    original = file_client.print_log
    file_client.print_log = lambda *args, **kwargs: None
    try:
        yield
    finally:
        file_client.print_log = original


def infer_without_logging_backends() -> str | None:
    """Let an inferencer of RF-DETR make its visualizer without backends for logs.

    A config's ``visualizer`` also says where losses are logged; an inferencer has no
    folder for that, and mmengine warns about every backend that it leaves out.

    Returns:
        The reason; the gap is there with every supported mmengine.
    """
    from mmengine.infer import BaseInferencer

    original = BaseInferencer._init_visualizer

    @functools.wraps(original)
    def init_visualizer(self, cfg):
        logs = 'visualizer' in cfg and is_rfdetr(self.model)
        if logs and cfg.visualizer.get('save_dir') is None:
            cfg = copy.deepcopy(cfg)
            cfg.visualizer.pop('vis_backends', None)
        return original(self, cfg)

    BaseInferencer._init_visualizer = init_visualizer
    return 'mmengine warns of log backends that an inferencer cannot use.'


def find_functions_of_mmengine() -> str | None:
    """Let an inferencer find mmengine's functions in the scope of MMDetection.

    It looks for the one that makes batches there. MMDetection has no registry of
    functions, so mmengine takes its own, and warns of it as of a wrong scope.

    Returns:
        The reason, or None with an MMDetection that has the registry.
    """
    from mmengine.registry import FUNCTIONS, Registry

    if FUNCTIONS._search_child('mmdet') is not None:
        return None
    Registry('function', parent=FUNCTIONS, scope='mmdet', locations=['mmdet.datasets'])
    return 'MMDetection lacks a registry that an inferencer looks into.'


def silence_boxes_at_the_border() -> str | None:
    """Keep the visualizer from warning of boxes and names that the image cuts off.

    For mmengine a box that ends with its image is out of bounds already.

    Returns:
        The reason; the gap is there with every supported mmengine.
    """
    warnings.filterwarnings(
        'ignore',
        'Warning: The (bbox|polygon|text) is out of bounds',
        UserWarning,
        'mmengine.visualization',
    )
    return 'mmengine warns of every drawn box that ends at the border of its image.'


def import_old_torch() -> str | None:
    """Keep torch before 2.6 from deprecating a module that only mmengine imports.

    Returns:
        The reason, or None with a newer torch.
    """
    if version_of('torch') >= (2, 6):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        importlib.import_module('torch.distributed.optim')
    return "torch before 2.6 warns of a module that mmengine's optimizers import."


def silence_old_torch() -> str | None:
    """Keep torch before 2.6 from deprecating what only torch itself uses.

    Recomputing blocks enters ``torch.cpu.amp.autocast``, and nobody can act on it.

    Returns:
        The reason, or None with a newer torch.
    """
    if version_of('torch') >= (2, 6):
        return None
    warnings.filterwarnings(
        'ignore', '.*torch.cpu.amp.autocast', FutureWarning, 'torch.utils.checkpoint'
    )
    return 'torch before 2.6 warns of deprecated parts that it uses itself.'
