"""Every wing can be taken out: the core and its tests do not notice."""

import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.fixtures import DATA, FIXTURES, REPOSITORY
from tests.interpreter import run, run_code
from tests.test_repository import FLOOR, PACKAGE, imported_modules, python_files

WINGS = sorted(path.parent.name for path in PACKAGE.glob('*/__init__.py'))
WINGS = [name for name in WINGS if name not in FLOOR]
# Half of them at a time, in six runs: each wing is out in three of these, no two in the
# same three, so for any two there is a run with the one and without the other.
RUNS = [*itertools.combinations(range(6), 3)][: len(WINGS)]
TAKEN_OUT = [
    [wing for wing, runs in zip(WINGS, RUNS, strict=True) if run in runs]
    for run in range(6)
]
# What of configs/ goes with a wing; a fragment is named by the next one of the chain.
CONFIGS = {
    'reliability': ['_base_/reliability.py'],
    'faults': ['_base_/faults.py'],
    'analysis': ['_base_/analysis.py'],
    'speed': ['_base_/speed.py', '_base_/fast_loading.py', 'rfdetr_search_coco.py'],
    'segmentation': ['_base_/rfdetr-seg_coco.py', 'rfdetr-seg_*.py'],
    'keypoints': ['_base_/rfdetr-pose_coco.py', 'rfdetr-pose_*.py'],
    'keypoint_results': ['_base_/rfdetr-pose_coco.py', 'rfdetr-pose_*.py'],
    'demo': ['rfdetr_demo.py', 'rfdetr_*_demo.py', 'rfdetr-pose_demo.py'],
    'search': ['rfdetr_search_*.py'],
}
# An editable installation would find the wings where they were.
FORGET = """
import sys
sys.meta_path[:] = [
    finder
    for finder in sys.meta_path
    if '__editable__' not in str(getattr(finder, '__module__', ''))
]
"""
BUILD = """
import pkgutil

import mmdet_rfdetr
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

init_default_scope('mmdet')
cfg = Config.fromfile(mmdet_rfdetr.config('rfdetr_coco.py'))
print(type(MODELS.build(cfg.model)).__name__)
print(*(part.name for part in pkgutil.iter_modules(mmdet_rfdetr.__path__)))
"""


def bases_of(path):
    """The list that a fragment calls ``_base_``; nothing of another config."""
    listed = re.search(r'^_base_ = \[(.*?)\]', path.read_text(), re.M | re.S)
    return listed[1] if listed else ''


def take_out(wings, folder):
    """A copy of the repository without these wings."""
    parts = 'mmdet_rfdetr', 'runtime', 'configs', 'tools', 'tests', 'docs'
    for name in (*parts, 'requirements'):
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    for path in [*REPOSITORY.glob('*.*'), REPOSITORY / 'LICENSE']:
        if path.is_file():
            shutil.copy(path, folder)
    for wing in wings:
        shutil.rmtree(folder / 'mmdet_rfdetr' / wing)
        shutil.rmtree(folder / 'tests' / f'test_{wing}', ignore_errors=True)
        for pattern in CONFIGS.get(wing, ()):
            for path in (folder / 'configs').glob(pattern):
                named, bases = repr(f'./{path.name}'), bases_of(path)
                path.unlink()
                for heir in (folder / 'configs/_base_').glob('*.py'):
                    heir.write_text(heir.read_text().replace(named, bases))
    (folder / 'sitecustomize.py').write_text(FORGET)
    return folder


def run_tests(folder, *options):
    """Run tests of the core in a copy."""
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider']
    # Those of the wings that are left may need one that is not.
    ignored = [f'--ignore=tests/test_{wing}' for wing in (*WINGS, 'wings')]
    ignored.append('--ignore=tests/test_wings.py')
    return run(
        [*command, *ignored, *options, 'tests'],
        cwd=folder,
        PYTHONPATH=os.pathsep.join((str(folder), str(folder / 'runtime'))),
        RFDETR_FIXTURES=FIXTURES,
        RFDETR_DATA=DATA,
        timeout=1800,
    )


@pytest.fixture(scope='module')
def core(tmp_path_factory):
    """A copy of the repository without any wing."""
    return take_out(WINGS, tmp_path_factory.mktemp('core') / 'repository')


def test_core_alone_builds_the_default_model(core):
    built = run_code(BUILD, cwd=core, PYTHONPATH=core)
    assert built.returncode == 0, built.stderr
    name, parts = built.stdout.splitlines()
    assert name == 'RFDETR'
    assert not set(WINGS) & set(parts.split())


@pytest.mark.long
def test_core_alone_says_that_it_has_no_command_line(core):
    asked = run([sys.executable, '-m', 'mmdet_rfdetr'], cwd=core, PYTHONPATH=core)
    assert asked.returncode == 1
    assert asked.stderr.startswith('error: ')
    assert 'mmdet_rfdetr.command_line' in asked.stderr


@pytest.mark.long
def test_core_alone_collects_its_tests(core):
    collected = run_tests(core, '--collect-only')
    assert collected.returncode == 0, collected.stdout[-5000:]


def test_every_wing_is_taken_out_beside_every_other():
    for wing, other in itertools.permutations(WINGS, 2):
        assert any(wing in out and other not in out for out in TAKEN_OUT)


@pytest.mark.slow
@pytest.mark.parametrize('wings', TAKEN_OUT, ids='-'.join)
def test_core_without_half_of_the_wings(wings, tmp_path):
    tested = run_tests(take_out(wings, tmp_path / 'core'), '-m', 'quick')
    assert tested.returncode == 0, tested.stdout[-5000:] + tested.stderr[-2000:]


@pytest.mark.slow
def test_core_without_any_wing(core):
    tested = run_tests(core)
    assert tested.returncode == 0, tested.stdout[-5000:] + tested.stderr[-2000:]


def test_tests_of_the_core_import_no_wing():
    wrong = [
        f'{path.relative_to(REPOSITORY)}: {name}'
        for path in python_files('tests')
        if not is_of_a_wing(path)
        for name in imported_modules(path)
        if {*name.split('.')} & {*WINGS, *(f'test_{wing}' for wing in WINGS)}
        and name.startswith(('mmdet_rfdetr.', 'tests.'))
    ]
    assert wrong == []


def is_of_a_wing(path):
    folder = path.relative_to(REPOSITORY / 'tests').parts[0]
    return folder.removeprefix('test_') in WINGS or path == Path(__file__)


LOADED = """
import sys, mmdet_rfdetr
print(*(name for name in sys.modules if name.startswith('mmdet_rfdetr.')))
"""


@pytest.mark.long
def test_importing_the_package_imports_all_that_registers_something():
    registering = {
        '.'.join(path.relative_to(REPOSITORY).with_suffix('').parts)
        for path in python_files('mmdet_rfdetr')
        if '.register_module(' in path.read_text()
    }
    imported = run_code(LOADED).stdout.split()
    assert len(registering) > 20
    assert registering - set(imported) == set()
