"""``python -m mmdet_rfdetr``."""

import pickle
import re
import sys

import mmdet
import pytest
import torch

import mmdet_rfdetr
from mmdet_rfdetr.command_line.main import PACKAGES, environment, find_tool, main
from mmdet_rfdetr.compat.operators import has_compiled_ops
from mmdet_rfdetr.precision import policy
from tests.fixtures import REPOSITORY
from tests.interpreter import run

TOOL = """
import sys
from mmdet.registry import MODELS
import neighbour
print(__name__, MODELS.get('RFDETR').__name__, neighbour.__name__, sys.argv[1:])
sys.exit(3)
"""


@pytest.fixture
def command(monkeypatch):
    """Run the command line in this process."""

    def run_main(*arguments):
        monkeypatch.setattr(sys, 'argv', ['mmdet_rfdetr', *arguments])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        main()

    return run_main


@pytest.mark.long
def test_any_tool_runs_with_the_plugin_registered(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'tool.py').write_text(TOOL)
    (tmp_path / 'folder' / 'neighbour.py').write_text('')
    arguments = ['folder/tool.py', '--flag', 'value']
    assert run([sys.executable, *arguments], cwd=tmp_path).returncode == 1

    result = run([sys.executable, '-m', 'mmdet_rfdetr', *arguments], cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    assert result.stdout == "__main__ RFDETR neighbour ['--flag', 'value']\n"


@pytest.mark.skipif(has_compiled_ops(), reason='full mmcv installed')
def test_tools_of_mmdetection_import_operators_and_those_of_others_cannot(
    command, tmp_path, capsys
):
    with pytest.raises(SystemExit) as end:
        command('confusion_matrix.py', '--help')
    assert end.value.code == 0
    assert 'confusion matrix' in capsys.readouterr().out
    (tmp_path / 'tool.py').write_text('from mmcv.ops import nms')
    with pytest.raises(SystemExit, match='this needs the compiled operators of full'):
        command(str(tmp_path / 'tool.py'))


def test_env_prints_versions_device_and_fixes_with_reasons(command, capsys):
    command('env')
    printed = capsys.readouterr().out
    assert f'mmdet_rfdetr {mmdet_rfdetr.__version__} (' in printed
    assert f'torch {torch.__version__}' in printed
    assert f'mmdet {mmdet.__version__}' in printed
    assert re.search('^device: .*(bfloat16|float32)', printed, re.MULTILINE)
    for name, reason in mmdet_rfdetr.compat.active().items():
        assert f'  {name}: {reason}' in printed


def test_env_says_none_without_fixes(monkeypatch):
    monkeypatch.setattr(mmdet_rfdetr.compat, 'active', dict)
    assert environment().endswith('active compat fixes:\n  none')


def test_env_names_packages_that_are_missing():
    printed = environment()
    missing = [name for name in PACKAGES if f'\n{name} not installed\n' in printed]
    # Of these two there is exactly one, and nothing else may be missing.
    assert missing in (['mmcv'], ['mmcv-lite'])


@pytest.mark.parametrize(
    ('native', 'said'), [(True, 'native'), (False, 'no native bfloat16, use float16')]
)
def test_env_describes_a_gpu(monkeypatch, native, said):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Some GPU')
    monkeypatch.setattr(policy, 'has_native_bfloat16', lambda _: native)
    assert f'device: Some GPU: {said}' in environment()


def test_tool_is_looked_for_here_then_in_the_package_then_in_mmdet(
    monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert find_tool('tools/train.py') == REPOSITORY / 'tools' / 'train.py'
    of_mmdet = find_tool('tools/misc/print_config.py')
    assert of_mmdet.is_file()
    assert 'mmdet' in of_mmdet.parts
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / 'train.py').write_text('')
    assert find_tool('tools/train.py').samefile(tmp_path / 'tools' / 'train.py')


def test_a_file_name_is_enough(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert find_tool('test.py') == REPOSITORY / 'tools' / 'test.py'
    (tmp_path / 'test.py').write_text('')
    # Without its ending it is none of the current folder.
    assert find_tool('test') == REPOSITORY / 'tools' / 'test.py'
    assert find_tool('train-on') == REPOSITORY / 'tools' / 'train_on.py'
    assert find_tool('print_config.py') == find_tool('tools/misc/print_config.py')
    # There is another one in a deeper folder.
    least = find_tool('tools/analysis_tools/browse_dataset.py')
    assert find_tool('browse_dataset.py') == least


@pytest.mark.parametrize(
    ('name', 'hint'), [('tools/trian.py', 'did you mean train.py?'), ('x', '(looked')]
)
def test_unknown_tool_is_named(command, capsys, name, hint):
    with pytest.raises(SystemExit):
        command(name)
    assert f'there is no tool {name!r} {hint}' in capsys.readouterr().err


def test_a_module_that_a_tool_lacks_is_named_and_no_package_advised(command, tmp_path):
    """A package that has the module's name may be a stranger's."""
    (tmp_path / 'tool.py').write_text('import my_own_xyz.part')
    with pytest.raises(SystemExit, match="'my_own_xyz'.*start in the folder") as stop:
        command(str(tmp_path / 'tool.py'))
    assert 'pip install' not in str(stop.value)


def test_tools_import_one_another_from_the_folder_above(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command('test_robustness.py', '--help')
    assert stopped.value.code == 0
    assert '--corruptions' in capsys.readouterr().out


@pytest.mark.parametrize('line', ['import mmdet.nothing', 'from mmdet import nothing'])
def test_a_wrong_import_of_a_tool_keeps_its_traceback(command, tmp_path, line):
    (tmp_path / 'tool.py').write_text(line)
    with pytest.raises(ImportError):
        command(str(tmp_path / 'tool.py'))


def test_a_tool_of_mmdetection_runs_no_code_from_its_file(command, tmp_path):
    path, trace = tmp_path / 'results.pkl', tmp_path / 'trace'
    code = f'open({str(trace)!r}, "w").close()'
    raw = pickle.dumps(code, 0)
    path.write_bytes(b'cbuiltins\nexec\n(' + raw[:-1] + b'tR.')
    with pytest.raises(SystemExit, match=r'not need builtins.exec.*--trust-checkpoint'):
        command('robustness_eval.py', str(path))
    assert not trace.exists()
    with pytest.raises(AttributeError):  # there are no results in the file
        command('--trust-checkpoint', 'robustness_eval.py', str(path))
    assert trace.exists()


def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command('--help')
    assert stopped.value.code == 0
    assert 'python -m mmdet_rfdetr tools/train.py' in capsys.readouterr().out
