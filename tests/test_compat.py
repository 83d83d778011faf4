"""Each gap as it is without the fix, and closed with it."""

import importlib.util
import inspect
import json
import pathlib
import pickle
import shlex
import sys

import mmcv
import mmdet.apis
import mmengine.runner.checkpoint as mmengine_checkpoint
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import CheckpointLoader, FlexibleRunner, Runner
from mmengine.utils import digit_version
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from mmdet_rfdetr import compat
from mmdet_rfdetr.compat import operators, packages, running
from mmdet_rfdetr.errors import UntrustedCheckpointError
from tests.interpreter import hide, loopback, run_code

compiled = importlib.machinery.PathFinder.find_spec('mmcv._ext', mmcv.__path__)
needs_lite = pytest.mark.skipif(compiled is not None, reason='full mmcv installed')
needs_full = pytest.mark.skipif(compiled is None, reason='mmcv-lite installed')


# No mmcv at all


def test_without_mmcv_the_error_says_what_to_install():
    unfixed = run_code(hide('mmcv') + 'import mmdet')
    assert "No module named 'mmcv'" in unfixed.stderr
    assert 'pip install' not in unfixed.stderr

    fixed = run_code(hide('mmcv') + 'import mmdet_rfdetr')
    assert fixed.returncode != 0
    last = fixed.stderr.splitlines()[-1]
    assert last.startswith('ImportError: mmdet_rfdetr needs mmcv')
    assert 'pip install "mmcv-lite' in last


# mmcv-lite without compiled operators

BUILD = 'import mmdet_rfdetr; mmdet_rfdetr.compat.apply_to_model()'
OPERATORS = """
import importlib.util, sys
import mmcv.utils
for _ in range(2):
    try:
        from mmcv.ops import nms
    except ImportError:
        print('fallback')
    print(mmcv.utils.collect_env()['MMCV Compiler'])
    print(importlib.util.find_spec('mmcv._ext') is not None)
"""


@pytest.mark.long
@needs_lite
def test_mmdet_models_import_with_mmcv_lite():
    unfixed = run_code('import mmdet.models')
    assert "No module named 'mmcv._ext'" in unfixed.stderr

    # This process has imported the plugin first.
    assert {'mmdet.models', 'mmdet.apis'} <= set(sys.modules)
    assert 'stub_compiled_ops' in compat.active()


@needs_lite
def test_all_of_mmdet_that_imports_operators_is_imported_by_the_plugin():
    package = pathlib.Path(mmdet.__file__).parent
    modules = {
        '.'.join(('mmdet', *path.relative_to(package).with_suffix('').parts))
        for path in package.rglob('*.py')
        if '.mim' not in path.parts and 'from mmcv.ops' in path.read_text()
    }
    assert len(modules) > 20
    assert {name.removesuffix('.__init__') for name in modules} <= set(sys.modules)


@needs_lite
@pytest.mark.long
def test_code_outside_of_mmdet_sees_that_there_are_no_operators():
    result = run_code(BUILD + OPERATORS)
    assert result.returncode == 0, result.stderr
    assert result.stdout == 'fallback\nn/a\nFalse\n' * 2


@pytest.fixture
def stub():
    """The module that stands in for the operators."""
    with operators.stand_in_for_compiled_ops():
        from mmcv import _ext
    return _ext


@needs_lite
def test_stub_is_a_module_with_a_real_spec(stub):
    with operators.stand_in_for_compiled_ops():
        # With a bare module this raises: ValueError: mmcv._ext.__spec__ is None.
        assert importlib.util.find_spec('mmcv._ext') is stub.__spec__
    assert not hasattr(stub, '__path__')
    assert not hasattr(stub, '__wrapped__')


@needs_lite
def test_operators_can_stand_in_again():
    # A second import of mmcv.ops would register its classes twice.
    with operators.stand_in_for_compiled_ops():
        from mmcv.ops import RoIPool
        from mmcv.utils import collect_env

        assert collect_env()['MMCV Compiler'] == 'n/a'
    assert RoIPool is mmdet.apis.inference.RoIPool
    assert 'mmcv.ops' not in sys.modules
    assert not hasattr(mmcv, 'ops')


@needs_lite
def test_missing_operator_travels_and_names_itself_when_called(stub):
    operator = pickle.loads(pickle.dumps(stub.nms))
    with pytest.raises(RuntimeError, match="'nms' is not part of mmcv-lite.*pip") as e:
        operator(torch.zeros(1, 4), iou_threshold=0.5)
    # The commands can be pasted.
    commands = str(e.value).rpartition('full mmcv: ')[2].split(' && ')
    assert [shlex.split(each)[:2] for each in commands] == [
        ['pip', 'uninstall'],
        *[['pip', 'install']] * 2,
    ]
    assert shlex.split(commands[-1])[-1] == 'mmcv>=2.1.0,<2.2.0'


@needs_full
def test_full_mmcv_needs_no_stub():
    from mmcv.ops import nms

    assert 'stub_compiled_ops' not in compat.active()
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    _, kept = nms(boxes, torch.tensor([0.1, 0.2]), 0.5)
    assert kept.tolist() == [1]


# setuptools without pkg_resources

LOOK_UP = """
import json, sys
from mmengine import Config
from mmengine.utils import get_installed_path, is_installed
print(json.dumps([
    is_installed('mmdet'),
    is_installed('no_such_package'),
    get_installed_path('mmengine'),
    Config._get_cfg_path('mmdet::_base_/default_runtime.py', 'child.py')[0],
]))
"""


@pytest.mark.long
def test_packages_are_found_without_pkg_resources():
    hidden = hide('pkg_resources')
    unfixed = run_code(hidden + LOOK_UP)
    assert "No module named 'pkg_resources'" in unfixed.stderr

    fixed = run_code(hidden + 'import mmdet_rfdetr' + LOOK_UP)
    assert fixed.returncode == 0, fixed.stderr
    mmdet, nothing, mmengine, config = json.loads(fixed.stdout)
    assert (mmdet, nothing) == (True, False)
    assert (
        pathlib.Path(mmengine) == pathlib.Path(mmengine_checkpoint.__file__).parents[1]
    )
    assert pathlib.Path(config).is_file()


def test_package_that_is_not_installed_has_no_path():
    with pytest.raises(ModuleNotFoundError, match="'no_such_package' is not installed"):
        packages.get_installed_path('no_such_package')


def test_distribution_is_found_under_its_own_name():
    # As mmengine looks up mmsegmentation, of module mmseg, for a config mmseg::...
    assert packages.is_installed('opencv-python')
    assert pathlib.Path(packages.get_installed_path('opencv-python')).name == 'cv2'


def test_working_pkg_resources_is_left_alone(monkeypatch):
    monkeypatch.setattr(packages.importlib.metadata, 'version', lambda name: '80.8.0')
    monkeypatch.setattr(packages.importlib.util, 'find_spec', lambda name: object())
    assert packages.replace_pkg_resources() is None


# Checkpoints


class Payload:
    """Unpickling it touches a file: the smallest piece of somebody else's code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture
def hostile(tmp_path):
    """A checkpoint that runs code, and the file by which that shows."""
    trace = tmp_path / 'trace'
    checkpoint = tmp_path / 'hostile.pth'
    torch.save({'state_dict': {}, 'meta': Payload(trace)}, checkpoint)
    torch.load(checkpoint, weights_only=False)
    assert trace.exists()
    trace.unlink()
    return checkpoint, trace


def test_own_checkpoint_loads(tmp_path):
    from mmengine.logging import MessageHub

    path = tmp_path / 'epoch_1.pth'
    hub = MessageHub('test_own_checkpoint_loads')
    hub.update_scalar('train/loss', 1.5)
    weights = {'weight': torch.ones(2)}
    torch.save({'state_dict': weights, 'message_hub': hub.state_dict()}, path)
    if digit_version(torch.__version__) >= digit_version(
        '2.6'
    ):  # before, it loaded any
        with pytest.raises(pickle.UnpicklingError):
            mmengine_checkpoint.load_from_local(str(path), 'cpu')

    loaded = CheckpointLoader.load_checkpoint(str(path), 'cpu')
    assert loaded['message_hub']['log_scalars']['train/loss'].current() == 1.5


def test_hostile_file_is_refused(hostile):
    checkpoint, trace = hostile
    with pytest.raises(UntrustedCheckpointError, match='pathlib'):
        CheckpointLoader.load_checkpoint(str(checkpoint), 'cpu')
    assert not trace.exists()


def test_hostile_link_is_refused(hostile, monkeypatch, tmp_path):
    checkpoint, trace = hostile
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'cache'))
    monkeypatch.setattr(
        torch.hub,
        'download_url_to_file',
        lambda url, path, *args, **kwargs: pathlib.Path(path).write_bytes(
            checkpoint.read_bytes()
        ),
    )
    link = 'https://example.org/weights/hostile.pth?download=true'
    urls = {'a': link}
    monkeypatch.setattr(mmengine_checkpoint, 'get_torchvision_models', lambda: urls)
    for name in (link, 'torchvision://a'):
        with pytest.raises(UntrustedCheckpointError, match='pathlib'):
            CheckpointLoader.load_checkpoint(name, 'cpu')
    assert not trace.exists()


@pytest.mark.parametrize(
    'address', ['s3://a.pth', 'cluster:s3://a.pth', 'petrel://a.pth', 'pavi://a']
)
def test_nothing_is_loaded_from_a_storage(address):
    with pytest.raises(FileNotFoundError, match=address):
        CheckpointLoader.load_checkpoint(address, 'cpu')


def test_link_is_downloaded_once(monkeypatch, tmp_path):
    downloads = []

    def download(url, path, progress):
        downloads.append(url)
        torch.save({'state_dict': {'weight': torch.ones(2)}}, path)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    link = 'https://example.org/weights/small.pth?download=true'
    for _ in range(2):
        loaded = CheckpointLoader.load_checkpoint(link, 'cpu')
    assert loaded['state_dict']['weight'].tolist() == [1.0, 1.0]
    assert downloads == [link]
    [file] = (tmp_path / 'checkpoints').iterdir()
    assert file.name.startswith('small-')
    assert file.suffix == '.pth'


def test_a_link_is_loaded_with_the_arguments_of_mmengines_loader(monkeypatch, tmp_path):
    def download(url, path, progress):
        assert progress is True
        torch.save({'state_dict': {'weight': torch.ones(2)}}, path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    mmengine_checkpoint.load_from_http(
        'https://a.org/r50-047c8118.pth', 'cpu', model_dir=str(tmp_path), progress=True
    )
    assert [path.name for path in tmp_path.iterdir()] == ['r50-047c8118.pth']


def test_links_to_files_of_one_name_are_two_files(monkeypatch, tmp_path):
    def download(url, path, progress):
        weights = {'weight': torch.ones(2)}
        torch.save({'state_dict': weights, 'meta': {'link': url}}, path)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    for link in ('https://example.org/a/best.pth', 'https://example.org/b/best.pth'):
        assert CheckpointLoader.load_checkpoint(link, 'cpu')['meta']['link'] == link


# Data loaders without workers


@pytest.mark.parametrize('runner', [Runner, FlexibleRunner])
def test_options_of_workers_do_not_matter_without_workers(runner):
    options = dict(
        num_workers=0,
        persistent_workers=True,
        prefetch_factor=2,
        timeout=5,
        multiprocessing_context='fork',
    )
    assert {*running.WORKER_OPTIONS, 'num_workers'} == set(options)
    for option in running.WORKER_OPTIONS:
        with pytest.raises((ValueError, AssertionError)):
            list(DataLoader([1], num_workers=0, **{option: options[option]}))
    loader = dict(batch_size=1, dataset=[1], sampler=[0], **options)
    cfg = ConfigDict(loader)
    build = object.__new__(runner).build_dataloader
    for workers, left in ((0, False), (1, True)):
        cfg.num_workers = workers
        built = build(dataloader=cfg)
        assert (built.num_workers, built.persistent_workers) == (workers, left)
    assert list(build(loader)) == [[1]]
    assert loader == dict(batch_size=1, dataset=[1], sampler=[0], **options)


# Data-parallel training without an accelerator

ONE_RANK = dict(
    RANK='0',
    LOCAL_RANK='0',
    WORLD_SIZE='1',
    MASTER_ADDR='127.0.0.1',
    MASTER_PORT='0',
    **({'GLOO_SOCKET_IFNAME': loopback()} if loopback() else {}),
)

WRAP = """
import mmdet_rfdetr
import torch
from mmengine.model import MMDistributedDataParallel
mmdet_rfdetr.compat.apply_to_model()
torch.distributed.init_process_group('gloo')
wrapped = MMDistributedDataParallel(module={model}, broadcast_buffers=False)
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(
    'forward_sync_buffers' not in inspect.signature(DistributedDataParallel).parameters,
    reason='this torch knows the old name only',
)
@pytest.mark.long
def test_data_parallel_training_of_rfdetr_alone_does_not_warn():
    other = run_code(WRAP.format(model='torch.nn.Linear(1, 1)'), **ONE_RANK)
    assert '`broadcast_buffers` is deprecated' in other.stderr

    ours = 'mmdet_rfdetr.models.query_selection.GroupLinear(1, 1, 1)'
    fixed = run_code(WRAP.format(model=ours), **ONE_RANK)
    assert fixed.returncode == 0, fixed.stderr
    assert 'Warning' not in fixed.stderr


# Warnings of mmengine about itself

HOOK = """
from types import SimpleNamespace
import mmdet_rfdetr
from mmengine.fileio import FileClient
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
run = SimpleNamespace(work_dir='.', logger=MMLogger.get_current_instance())
CheckpointHook().before_train(run)
print('fixed')
FileClient._instances.clear()
mmdet_rfdetr.compat.apply_to_model()
CheckpointHook().before_train(run)
"""


@pytest.mark.long
def test_saving_checkpoints_does_not_warn():
    unfixed, fixed = run_code(HOOK).stdout.split('fixed')
    assert '"FileClient" will be deprecated' in unfixed
    assert '"HardDiskBackend" is the alias' in unfixed
    assert 'Checkpoints will be saved' in fixed
    assert 'WARNING' not in fixed


VISUALIZER = """
from types import SimpleNamespace
from mmengine.config import Config
from mmengine.infer import BaseInferencer
cfg = Config(dict(visualizer=dict(
    type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])))
BaseInferencer._init_visualizer(SimpleNamespace(), cfg)
"""


@pytest.mark.long
def test_an_inferencer_does_not_warn_of_log_backends():
    assert 'Failed to add' in run_code('import mmdet_rfdetr' + VISUALIZER).stderr
    fixed = run_code(BUILD + VISUALIZER)
    assert (fixed.returncode, fixed.stderr) == (0, '')


FUNCTION = """
import mmdet.registry
from mmengine.registry import FUNCTIONS, init_default_scope
with FUNCTIONS.switch_scope_and_registry('mmdet') as registry:
    print(registry.get('pseudo_collate').__name__)
"""


@pytest.mark.long
def test_inferencer_finds_mmengines_functions_without_a_warning():
    unfixed = run_code(FUNCTION)
    assert 'Failed to search registry with scope "mmdet"' in unfixed.stdout

    fixed = run_code(BUILD + FUNCTION)
    assert fixed.returncode == 0, fixed.stderr
    assert fixed.stdout == 'pseudo_collate\n'


DRAWING = """
import numpy as np
from mmengine.visualization import Visualizer
visualizer = Visualizer(image=np.zeros((40, 60, 3), np.uint8))
visualizer.draw_bboxes(np.array([[0, 0, 60, 40], [-1, 5, 20, 20]]))
visualizer.draw_texts('cut off', np.array([60, 40]))
"""


@pytest.mark.long
def test_drawing_a_box_at_the_border_does_not_warn():
    unfixed = run_code(DRAWING)
    assert unfixed.stderr.count('out of bounds') == 3

    fixed = run_code(BUILD + DRAWING)
    assert (fixed.returncode, fixed.stderr) == (0, '')


# All of them


def test_apply_again_changes_nothing():
    finders, fixes = list(sys.meta_path), compat.active()
    compat.apply()
    assert sys.meta_path == finders
    assert compat.active() == fixes


def test_every_active_fix_gives_its_reason():
    fixes = {fix.__name__ for fix in (*compat.ON_IMPORT, *compat.WITH_A_MODEL)}
    assert set(compat.active()) <= {*fixes, 'silence_warnings'}
    assert all(reason.endswith('.') for reason in compat.active().values())
