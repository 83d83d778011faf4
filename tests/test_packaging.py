"""The wheel, the constraints, and configs that are found wherever they lie."""

import email
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config
from packaging.requirements import Requirement

import mmdet_rfdetr
from tests.factory import write_project
from tests.fixtures import REPOSITORY
from tests.interpreter import run, run_code

COMMAND = 'mmdet_rfdetr_command'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel, built from a copy: a build leaves files beside its sources."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for name in ('mmdet_rfdetr', 'configs', 'tools', 'runtime'):
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', f'{COMMAND}.py'):
        shutil.copy(REPOSITORY / name, source)
    options = ['--no-deps', '--no-build-isolation', '--quiet', '--wheel-dir', folder]
    built = run([sys.executable, '-m', 'pip', 'wheel', *options, source])
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """A folder that the wheel is installed into, apart from this checkout."""
    site = tmp_path_factory.mktemp('site')
    options = ['--no-deps', '--quiet', '--target', site]
    result = run([sys.executable, '-m', 'pip', 'install', *options, wheel])
    assert result.returncode == 0, result.stderr
    return site


def test_wheel_holds_sources_configs_and_tools(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = [*(REPOSITORY / 'mmdet_rfdetr').rglob('*.py')]
    sources += (REPOSITORY / 'mmdet_rfdetr').rglob('*.json')
    moved = [*REPOSITORY.glob('configs/**/*.py'), *REPOSITORY.glob('tools/*.*')]
    expected = {path.relative_to(REPOSITORY).as_posix() for path in sources} | {
        f'mmdet_rfdetr/{path.relative_to(REPOSITORY).as_posix()}' for path in moved
    }
    runtime = REPOSITORY / 'runtime'
    expected |= {
        path.relative_to(runtime).as_posix()
        for path in runtime.glob('rfdetr_*/**/*.*')
        if path.suffix in ('.py', '.html')
    }
    assert expected - names == set()
    assert any(name.endswith('/LICENSE') for name in names)
    assert not any(name.startswith('tests') for name in names)


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith('/METADATA')]
        return email.message_from_bytes(archive.read(path))


def test_mmcv_is_a_choice_of_extras_and_not_a_dependency(wheel):
    described = metadata(wheel)
    assert {'lite', 'full', 'tests', 'tools'} <= set(
        described.get_all('Provides-Extra')
    )
    requirements = map(Requirement, described.get_all('Requires-Dist'))
    extra_of = {
        requirement.name: str(requirement.marker)
        for requirement in requirements
        if requirement.name.startswith('mmcv')
    }
    assert extra_of == {'mmcv-lite': 'extra == "lite"', 'mmcv': 'extra == "full"'}


def test_the_runtime_is_a_distribution_of_its_own_without_pytorch(tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(REPOSITORY / 'runtime', source)
    options = ['--no-deps', '--no-build-isolation', '--quiet', '--wheel-dir', tmp_path]
    built = run([sys.executable, '-m', 'pip', 'wheel', *options, source])
    assert built.returncode == 0, built.stderr
    (path,) = tmp_path.glob('*.whl')
    assert path.name.startswith(f'rfdetr_runtime-{mmdet_rfdetr.__version__}-')
    needed = {
        requirement.name
        for requirement in map(Requirement, metadata(path).get_all('Requires-Dist'))
        if requirement.marker is None
    }
    assert needed == {'numpy', 'opencv-python', 'pillow', 'pyyaml'}
    names = set(zipfile.ZipFile(path).namelist())
    assert {'rfdetr_runtime/backends.py', 'rfdetr_report/page.html'} <= names
    assert not any(name.startswith('mmdet_rfdetr') for name in names)


def test_constraints_pin_every_requirement_within_its_range(wheel):
    text = (REPOSITORY / 'requirements' / 'constraints.txt').read_text()
    lines = [line for line in text.splitlines() if not line.startswith('#')]
    # A local build such as +cpu exists on some machines only.
    assert all(re.fullmatch(r'[a-z0-9.-]+==[0-9][0-9a-z.]*', line) for line in lines)
    pins = dict(line.split('==') for line in lines)
    for requirement in map(Requirement, metadata(wheel).get_all('Requires-Dist')):
        assert requirement.name in pins
        assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_configs_are_found_in_a_checkout():
    path = mmdet_rfdetr.config('rfdetr_nano_coco.py')
    assert path == str(REPOSITORY / 'configs' / 'rfdetr_nano_coco.py')


@pytest.mark.parametrize('base', ["'{}'", "['{}']"])
def test_configs_are_inherited_as_those_of_mmdetection(base, tmp_path):
    (tmp_path / 'mine.py').write_text(
        f'_base_ = {base.format("mmdet_rfdetr::rfdetr_nano_coco.py")}\n'
        "__import__('mmdet_rfdetr').set_image_size(_base_, 512)\n"
        'model = dict(num_queries=7, num_groups=_base_.model.num_groups)\n'
    )
    cfg = Config.fromfile(tmp_path / 'mine.py')
    expected = Config.fromfile(mmdet_rfdetr.config('rfdetr_nano_coco.py'))
    mmdet_rfdetr.set_image_size(expected, 512)
    expected.model.num_queries = 7
    assert cfg.to_dict() == expected.to_dict()


def test_unknown_base_is_answered_with_the_known_ones(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'mmdet_rfdetr::rfdetr_nan.py'\n")
    with pytest.raises(FileNotFoundError, match="'rfdetr_nan.py'.*rfdetr_nano_coco.py"):
        Config.fromfile(tmp_path / 'mine.py')


def test_unknown_config_is_answered_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="'rfdetr_nan.py'.*rfdetr_nano_coco.py"):
        mmdet_rfdetr.config('rfdetr_nan.py')


@pytest.mark.parametrize('name', ['nano_bccd', 'tiny_bccd', 'demo'])
def test_a_config_that_is_meant_to_be_copied_works_anywhere(name, tmp_path):
    if name == 'demo' and not (REPOSITORY / 'mmdet_rfdetr' / name).is_dir():
        pytest.skip('the wing of the demo was taken out')
    shipped = mmdet_rfdetr.config(f'rfdetr_{name}.py')
    copied = shutil.copy(shipped, tmp_path / 'mine.py')
    assert Config.fromfile(copied).to_dict() == Config.fromfile(shipped).to_dict()


@pytest.mark.long
@pytest.mark.skipif(
    not (REPOSITORY / 'mmdet_rfdetr' / 'command_line').is_dir(),
    reason='the wing that finds tools was taken out',
)
def test_configs_and_tools_are_found_in_the_wheel(installed, tmp_path):
    code = """
        import mmdet_rfdetr, mmdet_rfdetr.command_line.main as command
        print(mmdet_rfdetr.config('rfdetr_nano_coco.py'))
        print(command.find_tool('tools/train.py'))
        from mmengine.config import Config
        print(Config._get_cfg_path('mmdet_rfdetr::rfdetr_nano_coco.py', '')[0])
    """
    result = run_code(code, cwd=tmp_path, PYTHONPATH=installed)
    assert result.returncode == 0, result.stderr
    folder = installed / 'mmdet_rfdetr'
    assert result.stdout.split() == [
        str(folder / 'configs' / 'rfdetr_nano_coco.py'),
        str(folder / 'tools' / 'train.py'),
        str(folder / 'configs' / 'rfdetr_nano_coco.py'),
    ]


@pytest.mark.skipif(
    not (REPOSITORY / 'mmdet_rfdetr' / 'command_line').is_dir(),
    reason='the wing that finds tools was taken out',
)
def test_the_wheel_brings_a_command_that_answers_without_the_package(
    installed, tmp_path
):
    command = [sys.executable, '-X', 'importtime', installed / 'bin' / 'mmdet-rfdetr']
    for arguments, status, said in [
        (['--help'], 0, 'usage: mmdet-rfdetr'),
        (['train', 'mine.py'], 2, "config 'mine.py' does not exist"),
        (['weights'], 0, 'rf-detr-nano.pth'),
    ]:
        answer = run([*command, *arguments], cwd=tmp_path, PYTHONPATH=installed)
        assert answer.returncode == status, answer.stderr
        assert said in answer.stdout + answer.stderr
        lines = answer.stderr.splitlines()
        names = {line.rpartition('|')[2].strip() for line in lines}
        assert COMMAND in names
        assert not {'mmdet_rfdetr', 'torch', 'mmengine'} & names


# Projects of users, who have the wheel and no checkout

TRAIN = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'


def train(project, installed):
    """Train with MMDetection's own script, which does not know this package."""
    result = run([sys.executable, TRAIN, 'mine.py'], cwd=project, PYTHONPATH=installed)
    assert result.returncode == 0, result.stderr
    assert 'Epoch(train) [1][2/2]' in result.stdout
    assert 'coco/bbox_mAP:' in result.stdout
    assert str(REPOSITORY) not in result.stdout + result.stderr


@pytest.mark.long
def test_project_inherits_by_name(installed, tmp_path):
    write_project(tmp_path / 'project')
    train(tmp_path / 'project', installed)


@pytest.mark.long
def test_project_inherits_by_relative_path(installed, tmp_path):
    config = installed / 'mmdet_rfdetr' / 'configs' / 'rfdetr_nano_coco.py'
    relative = os.path.relpath(config, tmp_path / 'project')
    write_project(tmp_path / 'project', repr(relative))
    train(tmp_path / 'project', installed)


def test_project_imports_the_plugin_by_custom_imports_only(installed, tmp_path):
    write_project(tmp_path / 'project')
    config = tmp_path / 'project' / 'mine.py'
    cfg = Config.fromfile(config)
    assert cfg.custom_imports.imports == ['mmdet_rfdetr']
    # A whole config: it inherits from nothing and calls nothing.
    cfg.dump(config)
    assert '_base_' not in config.read_text()
    assert '__import__' not in config.read_text()
    train(tmp_path / 'project', installed)
