"""Bridges over gaps in third-party packages, and the only place that knows them.

One function closes one gap. It looks whether the gap exists in this environment,
closes it, and returns the reason as one sentence; without the gap it changes nothing
and returns ``None``. ``python -m mmdet_rfdetr env`` prints what is active and why.
"""

import copy
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import os
import socket
import sys
import urllib.parse
import warnings
from collections.abc import Callable

from .errors import ExplainedError, MissingPackageError

_MMCV = '"mmcv-lite>=2.1.0,<2.2.0"'
_FULL_MMCV = (  # to be pasted into a shell: nothing follows it
    'pip uninstall -y mmcv-lite && pip install "setuptools<80" wheel ninja && '
    'pip install --no-build-isolation "mmcv>=2.1.0,<2.2.0"'
)


def require_mmcv() -> None:
    """Stop with directions where neither mmcv nor mmcv-lite is installed.

    Neither can be a plain dependency, because pip would install both side by side
    over the same files; MMDetection itself only fails with a missing module.

    Raises:
        ImportError: no distribution provides the module ``mmcv``.
    """
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError(
            'mmdet_rfdetr needs mmcv and found neither mmcv-lite nor mmcv: '
            f'run pip install {_MMCV}.'
        )


class MissingOpError(ExplainedError, RuntimeError):
    """An operator was called that mmcv-lite does not have."""


def call_missing_op(name: str, *args, **kwargs):
    """Stand in for one compiled mmcv operator: say how to get it.

    Args:
        name: The operator's name in ``mmcv._ext``.
        *args: What the operator takes.
        **kwargs: The same.

    Raises:
        MissingOpError: always.
    """
    raise MissingOpError(
        f'The compiled operator {name!r} is not part of mmcv-lite. RF-DETR itself does '
        f'not use it; what does needs full mmcv: {_FULL_MMCV}'
    )


def require_compiled_ops(purpose: str) -> None:
    """Stop before the work where it would end at a missing operator.

    Args:
        purpose: what needs compiled operators.

    Raises:
        MissingOpError: with mmcv-lite.
    """
    if stub_compiled_ops.__name__ in _active:
        raise MissingOpError(
            f'{purpose} needs compiled operators, which mmcv-lite does not have; for '
            f'full mmcv: {_FULL_MMCV}'
        )


class _OpsFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``mmcv._ext`` when no other finder does; it has every operator's name."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != 'mmcv._ext':
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module):
        module.__getattr__ = _missing_op


def _missing_op(name: str):
    # Dunder names are questions that Python asks of any module ("do you have a
    # __path__?"); to answer them with an operator would be a lie.
    if name.startswith('__'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")
    return functools.partial(call_missing_op, name)


def stub_compiled_ops() -> str | None:
    """Let ``mmcv.ops`` be imported with mmcv-lite.

    Many modules of MMDetection import ``mmcv.ops`` at their top, which loads the
    compiled ``mmcv._ext``; mmcv-lite has none, so ``import mmdet.models`` fails
    although RF-DETR needs no operator of it. The finder goes last, so a compiled
    extension always wins, and it hands out a real module spec, which the import
    system and mmengine's Runner look at.

    Returns:
        The reason, or None with a full mmcv.
    """
    package = importlib.util.find_spec('mmcv')
    compiled = importlib.machinery.PathFinder.find_spec(
        'mmcv._ext', package.submodule_search_locations
    )
    if compiled is not None:
        return None
    if not any(isinstance(finder, _OpsFinder) for finder in sys.meta_path):
        sys.meta_path.append(_OpsFinder())
    return 'mmcv-lite has no compiled operators, which MMDetection imports.'


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


def load_checkpoints_safely() -> str | None:
    """Route checkpoint files and links through this package's own loader.

    ``mmengine`` calls ``torch.load`` with its defaults. Since torch 2.6 these refuse
    mmengine's own checkpoints, before they ran any code that a file contained, and for
    a link they still do. A loader for mmengine's schemes, rather than a process-wide
    list of allowed classes, leaves every other ``torch.load`` as it is.

    Returns:
        The reason; the gap is there with every version of torch.
    """
    from mmengine.runner import checkpoint
    from mmengine.runner.checkpoint import CheckpointLoader

    # Storages, which mmengine unpickles from, count as files that are not there.
    storages = ('pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')
    CheckpointLoader.register_scheme(('', *storages), load_from_local, force=True)
    CheckpointLoader.register_scheme(
        ('http://', 'https://'), load_from_http, force=True
    )
    # The schemes that look a link up, such as open-mmlab://, fetch it by this name.
    checkpoint.load_from_http = load_from_http
    return (
        "mmengine's loader refuses its own checkpoints on torch 2.6 and newer, and "
        'unpickles anything on older versions and from links.'
    )


def load_from_local(filename: str, map_location=None) -> dict:
    """Load a checkpoint file without running code from it.

    Args:
        filename: Path of the file; ``~`` stands for the home folder.
        map_location: As in :func:`torch.load`.
    """
    from mmdet_rfdetr.checkpoints.loading import load_checkpoint_file

    return load_checkpoint_file(os.path.expanduser(filename), map_location)


def load_from_http(filename: str, map_location=None) -> dict:
    """Download a checkpoint once, to torch's cache, and load it as a local file.

    Args:
        filename: Link to the file.
        map_location: As in :func:`torch.load`.
    """
    import torch
    from mmengine.dist import barrier, get_rank

    folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
    stem, extension = os.path.splitext(
        os.path.basename(urllib.parse.urlparse(filename).path)
    )
    # Several official checkpoints have one file name and differ in the folder only.
    digest = hashlib.sha256(filename.encode()).hexdigest()[:8]
    path = os.path.join(folder, f'{stem}-{digest}{extension}')

    def download():
        if not os.path.isfile(path):
            os.makedirs(folder, exist_ok=True)
            torch.hub.download_url_to_file(filename, path, progress=os.isatty(2))

    # Rank 0 first, so that ranks with a common cache do not all fetch the file; a
    # rank on another machine has its own cache and fetches it then.
    if get_rank() == 0:
        download()
    barrier()
    download()
    return load_from_local(path, map_location)


def run_no_stored_config() -> str | None:
    """Keep mmengine from running the config that a checkpoint holds as text.

    A config is Python code. An inferencer without a config of its own takes that of
    its weights, so that a file of tensors and text could do anything; a runner that
    resumes does so with one that old versions wrote.

    Returns:
        The reason; the gap is there with every mmengine.
    """
    from mmengine.config import Config

    original = Config.fromstring

    @functools.wraps(original)
    def fromstring(cfg_str, file_format):
        from mmdet_rfdetr.checkpoints.loading import refuse_stored_config

        refuse_stored_config(cfg_str)
        return original(cfg_str, file_format)

    Config.fromstring = staticmethod(fromstring)
    return 'mmengine runs the config that a checkpoint holds, which is code.'


def train_data_parallel_on_cpu() -> str | None:
    """Let mmengine train data-parallel where there is no accelerator.

    Its launcher calls ``torch.cuda.set_device`` and its runner passes ``device_ids``
    to the model wrapper; both fail without a GPU, so a two-process run could not be
    tried on an ordinary machine, nor tested there.

    Returns:
        The reason, or None with an accelerator.
    """
    from mmengine.device import get_device

    if get_device() != 'cpu':
        return None

    import mmengine.dist.utils
    import torch

    def init_gloo(backend, init_backend='torch', **kwargs):
        _stay_on_this_machine()
        torch.distributed.init_process_group(backend='gloo', **kwargs)

    mmengine.dist.utils._init_dist_pytorch = init_gloo
    _change_data_parallel(lambda arguments: arguments.pop('device_ids', None))
    return "No accelerator: mmengine's data-parallel training takes one for granted."


def _change_data_parallel(change: Callable[[dict], object]) -> None:
    """Change the arguments that mmengine's data-parallel wrapper gets by name."""
    from mmengine.model import MMDistributedDataParallel

    original = MMDistributedDataParallel.__init__

    @functools.wraps(original)
    def init(self, *args, **kwargs):
        change(kwargs)
        original(self, *args, **kwargs)

    MMDistributedDataParallel.__init__ = init


def _stay_on_this_machine() -> None:
    """Let processes of one machine talk over its loopback interface.

    gloo looks up the machine's own name to choose an interface, which many containers
    and closed networks cannot answer; it then fails or warns.
    """
    if os.environ.get('MASTER_ADDR') not in ('127.0.0.1', '::1', 'localhost'):
        return
    for _, name in socket.if_nameindex():
        if name in ('lo', 'lo0'):  # Linux, macOS
            os.environ.setdefault('GLOO_SOCKET_IFNAME', name)


def rename_broadcast_buffers() -> str | None:
    """Pass mmengine's ``broadcast_buffers`` on under the name that torch now wants.

    mmengine switches the synchronisation of buffers in every forward off. Newer
    versions of torch renamed the switch and warn on every rank about the old name; the
    new one also makes the buffers of all ranks equal once, at the start.

    Returns:
        The reason, or None with a torch that has the old name only.
    """
    from torch.nn.parallel import DistributedDataParallel

    arguments = inspect.signature(DistributedDataParallel.__init__).parameters
    if 'forward_sync_buffers' not in arguments:
        return None

    def rename(arguments):
        if 'broadcast_buffers' in arguments:
            arguments['forward_sync_buffers'] = arguments.pop('broadcast_buffers')

    _change_data_parallel(rename)
    return "torch deprecates an argument that mmengine's data-parallel training passes."


def silence_unused_file_client() -> str | None:
    """Keep mmengine from warning about a deprecated class that only itself makes.

    Its checkpoint hook makes a ``FileClient`` in every run, to be compatible with
    settings that nobody gave, and making one logs two deprecation warnings.

    Returns:
        The reason, or None with an mmengine that no longer has the class.
    """
    if importlib.util.find_spec('mmengine.fileio.file_client') is None:
        return None

    from mmengine.fileio import file_client

    # These two warnings are all that the module ever logs.
    file_client.print_log = lambda *args, **kwargs: None
    return "mmengine's checkpoint hook makes, unused, what mmengine deprecates."


def infer_without_logging_backends() -> str | None:
    """Let an inferencer make its visualizer without the backends for training logs.

    A config's ``visualizer`` also says where losses are logged; an inferencer has no
    folder for that, and mmengine warns about every backend that it leaves out.

    Returns:
        The reason; the gap is there with every supported mmengine.
    """
    from mmengine.infer import BaseInferencer

    original = BaseInferencer._init_visualizer

    @functools.wraps(original)
    def init_visualizer(self, cfg):
        if 'visualizer' in cfg and cfg.visualizer.get('save_dir') is None:
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


def silence_old_torch() -> str | None:
    """Keep torch before 2.6 from deprecating what only torch itself and mmengine use.

    Importing mmengine's optimizers imports ``torch.distributed.optim``, and recomputing
    blocks enters ``torch.cpu.amp.autocast``; both warn, and nobody can act on it.

    Returns:
        The reason, or None with a newer torch.
    """
    if version_of('torch') >= (2, 6):
        return None
    with warnings.catch_warnings(record=True):
        importlib.import_module('torch.distributed.optim')
    warnings.filterwarnings(
        'ignore', '.*torch.cpu.amp.autocast', FutureWarning, 'torch.utils.checkpoint'
    )
    return 'torch before 2.6 warns of deprecated parts that it uses itself.'


def solve_assignments_on_gpu(costs):
    """Solve assignment problems by torch-linear-assignment, without waiting for it.

    Its public function reads on the host whether all costs are finite and a solution
    exists, which cannot be recorded in a CUDA graph. Both are certain here, so this
    calls what it calls, without these checks.

    Args:
        costs: (problems, rows, columns) float64 on a GPU, finite, no more rows than
            columns.

    Returns:
        (problems, rows) int64, the column of each row, as SciPy finds it.

    Raises:
        ImportError: it is not installed, or has no solver for this GPU.
    """
    try:
        from torch_linear_assignment import _triton
    except ImportError as error:
        raise MissingPackageError(
            "matching with solver='device' needs torch-linear-assignment and Triton on "
            'a GPU: run pip install "torch-linear-assignment>=0.1.0,<0.2", or match on '
            'the host with --cfg-options model.train_cfg.assigner.solver=scipy'
        ) from error
    return _triton.batch_linear_assignment(costs, validation='off')


def silence_streams_of_graphs() -> None:
    """Keep torch from warning of the streams of CUDA graphs that it recorded itself.

    ``torch.cuda.make_graphed_callables`` records on a stream of its own, so the nodes
    that hand gradients to parameters belong to that one. Since 2.10 torch warns of it
    in every run that replays such graphs; the extra wait it warns of is one event.
    """
    import torch

    switch = 'set_warn_on_accumulate_grad_stream_mismatch'
    if hasattr(torch.autograd.graph, switch):
        getattr(torch.autograd.graph, switch)(False)


def version_of(package: str) -> tuple[int, int]:
    """Major and minor version of an installed package."""
    major, minor = importlib.metadata.version(package).split('.')[:2]
    return int(major), int(minor)


_FIXES = (
    silence_old_torch,
    stub_compiled_ops,
    replace_pkg_resources,
    load_checkpoints_safely,
    run_no_stored_config,
    train_data_parallel_on_cpu,
    rename_broadcast_buffers,
    silence_unused_file_client,
    infer_without_logging_backends,
    find_functions_of_mmengine,
    silence_boxes_at_the_border,
)
_active: dict[str, str] = {}


def apply() -> None:
    """Close every gap that this environment has; a second call changes nothing.

    Raises:
        ImportError: neither mmcv nor mmcv-lite is installed.
    """
    require_mmcv()
    for fix in _FIXES:
        if fix.__name__ in _active:
            continue
        reason = fix()
        if reason is not None:
            _active[fix.__name__] = reason


def active() -> dict[str, str]:
    """Return the name and the reason of every fix that :func:`apply` made."""
    return dict(_active)
