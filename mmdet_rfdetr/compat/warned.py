"""What mmengine, MMDetection and torch warn of, and nobody can change."""

import importlib
import warnings

SILENCED = (
    (
        'mmengine.visualization',
        'Warning: The (bbox|polygon|text) is out of bounds',
        UserWarning,
        'for mmengine a drawn box that ends with its image is out of bounds already',
    ),
    (
        'mmengine.visualization',
        "Failed to add <class 'mmengine.visualization",
        UserWarning,
        "a config's visualizer also says where losses are logged, which an inferencer "
        'has no folder for',
    ),
    (
        'torch.utils.checkpoint',
        '.*torch.cpu.amp.autocast',
        FutureWarning,
        'torch before 2.6 recomputes blocks with what it deprecates for others',
    ),
)
"""Module that warns, beginning of the message, category, and why it is silenced."""


def silence_warnings() -> str:
    """Add the filters of the table above.

    Returns:
        The reason.
    """
    for module, message, category, _ in SILENCED:
        warnings.filterwarnings('ignore', message, category, module)
    return 'Nobody can act on: ' + '; '.join(why for *_, why in SILENCED) + '.'


def import_what_torch_deprecates() -> None:
    """Keep torch before 2.6 from deprecating a module that only mmengine imports."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        importlib.import_module('torch.distributed.optim')


def silence_file_client() -> str:
    """Keep mmengine from warning about a deprecated class that only itself makes.

    Its checkpoint hook makes a ``FileClient``, to be compatible with settings that
    nobody gave, and making one logs two deprecation warnings: all that the module ever
    logs.

    Returns:
        The reason.
    """
    from mmengine.fileio import file_client

    file_client.print_log = lambda *args, **kwargs: None
    return 'mmengine logs that a class is deprecated, which only itself makes.'


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
