"""What is answered before anything heavy is imported: help, mistyped words, no files.

Seconds depend on the machine, so the modules are looked at. Every tool of the folder is
held to it.
"""

import json
import shutil
import sys

import pytest
import rfdetr_arguments
from mmengine.config import DictAction

from mmdet_rfdetr.command_line.running import key_values
from mmdet_rfdetr.errors import ExplainedError
from tests.fixtures import REPOSITORY
from tests.interpreter import run, run_code

SHARED = 'rfdetr_arguments'
LIGHT = {SHARED, 'rfdetr_predict', 'rfdetr_runtime', 'rfdetr_datasets'}
"""What tools may import at their top beside Python's library, and what is like it."""
TOOLS = sorted(
    path.stem for path in REPOSITORY.glob('tools/*.py') if path.stem != SHARED
)
# Runs a file as Python does, once for each list of arguments, and prints what it said,
# and the modules that this took.
ASK = """
import contextlib, io, json, os, runpy, sys
before = set(sys.modules)
path, typed = sys.argv[1], json.loads(sys.argv[2])
sys.path[0] = os.path.dirname(path)
answers = []
for sys.argv in [[path, *arguments] for arguments in typed]:
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as stop:
            code = stop.code
    answers.append([code, said.getvalue()])
print(json.dumps([answers, sorted(set(sys.modules) - before)]))
"""
EARLIER = """
from mmdet_rfdetr.command_line import running as cli
cli.build_parser('As tools were once.', '').parse_args()
"""
MANY = 100
"""More modules of Python's own than argparse, pathlib and the like bring along."""


def ask(name, *typed):
    """The exit code of a tool and what it says, for each of some lists of arguments."""
    path = REPOSITORY / 'tools' / f'{name}.py'
    result = run_code(ASK, path, json.dumps(typed))
    assert result.returncode == 0, result.stderr
    answers, modules = json.loads(result.stdout)
    foreign = {name.partition('.')[0] for name in modules} - sys.stdlib_module_names
    assert foreign <= LIGHT
    assert len(modules) < MANY
    return answers


@pytest.mark.parametrize('name', TOOLS)
def test_help_and_mistakes_import_nothing_heavy(name):
    # Files that are not there: as many as a tool takes.
    lists = [['--help'], ['--no-such-option']]
    lists += [['nothing.py'] * count for count in (1, 2, 4)]
    helped, *mistaken = ask(name, *lists)
    assert helped[0] == 0
    assert f'tools/{name}.py' in helped[1]
    assert {code for code, _ in mistaken} == {2}
    takes_files = 'positional arguments:' in helped[1]
    assert takes_files == any('does not exist' in text for _, text in mistaken)


def test_tools_are_found():
    assert {'train', 'test', 'benchmark'} <= set(TOOLS)


def test_the_console_command_imports_nothing_heavy():
    code = 'import mmdet_rfdetr_command; mmdet_rfdetr_command.main()'
    for arguments, status, said in [
        (['--help'], 0, 'mmdet-rfdetr'),
        (['trian.py'], 2, 'did you mean train.py?'),
        (['train', '--help'], 0, 'tools/train.py'),
        (['train', 'nothing.py'], 2, "'nothing.py' does not exist"),
        (['weights'], 0, 'rf-detr-nano.pth'),
    ]:
        found = run([sys.executable, '-X', 'importtime', '-c', code, *arguments])
        assert found.returncode == status, found.stderr
        assert said in found.stdout + found.stderr
        names = {line.rpartition('|')[2].strip() for line in found.stderr.splitlines()}
        assert 'mmdet_rfdetr_command' in names
        assert not {'torch', 'mmengine', 'mmdet', 'numpy', 'mmdet_rfdetr'} & names


@pytest.mark.parametrize(
    'texts',
    [['a=1', 'b.c=[x,(1,2.5)]'], ['a=None', 'a=true', 'b="x y"', 'c='], ['d=1e-4,2']],
)
def test_options_are_read_as_mmengine_reads_them(texts):
    typed = ['mine.py', '--cfg-options', *texts]
    ours = rfdetr_arguments.config_parser('', '').parse_args(typed)
    stock = rfdetr_arguments.tool_parser('', '')
    stock.add_argument('config')
    stock.add_argument('--cfg-options', nargs='+', action=DictAction)
    assert key_values(ours.cfg_options) == stock.parse_args(typed).cfg_options


def test_options_that_are_given_twice_are_joined():
    typed = ['mine.py', '--cfg-options', 'a=1', '--cfg-options', 'a=2', 'b=3']
    args = rfdetr_arguments.config_parser('', '').parse_args(typed)
    assert key_values(args.cfg_options) == dict(a=2, b=3)


def test_brackets_that_do_not_close_are_named():
    with pytest.raises(ExplainedError, match=r'Imbalanced brackets exist in \(1,2'):
        key_values(['a=[(1,2]'])


@pytest.mark.long
def test_tools_work_as_copies_and_without_their_folder(tmp_path):
    """As users of MMDetection have them; ``-P`` is for those who trust no folder."""
    copied = shutil.copy(REPOSITORY / 'tools' / 'train.py', tmp_path)
    earlier = tmp_path / 'earlier.py'
    earlier.write_text(EARLIER)
    config = 'mmdet_rfdetr::no.py'
    for command in [
        [copied, config],
        ['-m', 'mmdet_rfdetr', 'train.py', config],
        ['-P', REPOSITORY / 'tools' / 'test.py', config, 'no.pth'],
        [earlier, config],
    ]:
        found = run([sys.executable, *command], cwd=tmp_path)
        assert found.returncode == 2, found.stderr
        assert str(REPOSITORY / 'configs') in found.stderr


def test_a_copy_of_all_parsers_names_the_configs_of_the_package(tmp_path):
    for name in ('train', SHARED):
        (tmp_path / 'tools').mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / 'tools' / f'{name}.py', tmp_path / 'tools')
    (tmp_path / 'configs').mkdir()
    found = run([sys.executable, 'tools/train.py', 'rfdetr_demo.py'], cwd=tmp_path)
    assert f'did you mean {REPOSITORY / "configs" / "rfdetr_demo.py"}' in found.stderr
