"""Rules of the house that a reader would otherwise have to check."""

import ast
import collections
import io
import itertools
import re
import tokenize
from pathlib import Path

import mmdet.registry
import mmengine.registry
import pytest

import mmdet_rfdetr
from tests.conftest import HEAVY
from tests.fixtures import REPOSITORY

PACKAGE = REPOSITORY / 'mmdet_rfdetr'
# Packages that run files without PyTorch; each as small as a wing.
RUNTIMES = (
    *('rfdetr_runtime', 'rfdetr_predict', 'rfdetr_datasets'),
    *('rfdetr_convert', 'rfdetr_report', 'rfdetr_family'),
)
# Parts by floor: a part imports from floors below, or from its own without circles.
FLOORS = (
    {'errors', 'shipped'},
    {'ops', 'class_names', 'image_size', 'precision', 'checkpoints'},
    {'compat', 'losses', 'matching'},
    {'models'},
    {'data', 'evaluation'},
    {'training'},
    {'__init__'},
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
# What one may want besides: a wing imports from the core, and nothing imports a wing.
WINGS = {
    *('speed', 'reliability', 'faults', 'segmentation'),
    *('command_line', 'analysis', 'demo', 'benchmark', 'formats', 'deploy'),
    *('runtime', 'search', 'keypoints', 'keypoint_results'),
    '__main__',
}


def python_files(*folders):
    return sorted(
        path for folder in folders for path in (REPOSITORY / folder).rglob('*.py')
    )


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imported_modules(path):
    """Absolute names of the modules and names that a file imports anywhere."""
    package = path.relative_to(REPOSITORY).with_suffix('').parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = '.'.join((*base, *filter(None, [node.module])))
            yield from (f'{module}.{alias.name}' for alias in node.names)


def part_imports():
    """Yield (file, its part, the part that it imports)."""
    for path in python_files('mmdet_rfdetr'):
        for name in imported_modules(path):
            root, *rest = name.split('.')
            if root == 'mmdet_rfdetr':
                is_part = rest and rest[0] in {*FLOOR, *WINGS}
                yield path, part_of(path), rest[0] if is_part else '__init__'


def test_every_part_has_a_floor():
    parts = {part_of(path) for path in python_files('mmdet_rfdetr')}
    assert parts <= {*FLOOR, *WINGS}, 'say in FLOORS what the new part may import'


def test_imports_run_one_way():
    wrong = [
        f'{path.relative_to(REPOSITORY)} imports {imported}'
        for path, part, imported in part_imports()
        if imported in FLOOR and FLOOR[imported] > FLOOR.get(part, len(FLOORS))
    ]
    assert wrong == []


def test_nothing_imports_a_wing():
    found = {
        (part, imported)
        for _, part, imported in part_imports()
        if imported in WINGS and part not in (imported, '__main__')
    }
    assert found == set()


def test_parts_of_one_floor_have_no_circles():
    graph = {}
    for _, part, imported in part_imports():
        if {part, imported} <= set(FLOOR) and part != imported:
            graph.setdefault(part, set()).add(imported)
    while leaves := {
        name for name in set(itertools.chain(*graph.values())) if not graph.get(name)
    }:
        for imports in graph.values():
            imports -= leaves
        graph = {name: imports for name, imports in graph.items() if imports}
        if not graph:
            break
    assert graph == {}


def test_compiled_operators_are_not_imported():
    wrong = [
        f'{path.relative_to(REPOSITORY)}: {name}'
        for path in python_files('mmdet_rfdetr', 'tools', 'configs')
        for name in imported_modules(path)
        if name.startswith(('mmcv.ops', 'mmcv._ext'))
        or name.rpartition('.')[2] in ('FocalLoss', 'DetTTAModel')
    ]
    assert wrong == []


def test_nothing_unpickles_files_of_strangers():
    wrong = []
    for path in python_files('mmdet_rfdetr', 'tools'):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            # "not trusted": the one place where a user can say so.
            safe = any(
                keyword.arg == 'weights_only'
                and ast.unparse(keyword.value) in ('True', 'not trusted')
                for keyword in node.keywords
            )
            if called.startswith(('pickle.load', 'pickle.Unpickler')) or (
                called == 'torch.load' and not safe
            ):
                wrong.append(f'{path.relative_to(REPOSITORY)}:{node.lineno}')
    assert wrong == []


def registered():
    """Yield (registry, name) for everything of ours in any registry."""
    for module in (mmdet.registry, mmengine.registry):
        for registry in vars(module).values():
            if isinstance(registry, mmengine.registry.Registry):
                for name, thing in registry.module_dict.items():
                    if getattr(thing, '__module__', '').startswith('mmdet_rfdetr'):
                        yield registry, name


def test_registered_names_start_with_rfdetr():
    names = {name for _, name in registered()}
    assert 'RFDETR' in names
    assert {name for name in names if not name.startswith('RFDETR')} == set()


def test_everything_is_registered_in_the_scope_of_mmdet():
    assert {registry.scope for registry, _ in registered()} == {'mmdet'}


def test_tools_import_the_package_before_mmdetection():
    for path in python_files('tools'):
        imports = [
            name
            for name in imported_modules(path)
            if name.split('.')[0] in ('mmdet_rfdetr', 'mmdet', 'mmengine', 'mmcv')
        ]
        assert not imports or imports[0].startswith('mmdet_rfdetr'), path


def text_files():
    folders = ('mmdet_rfdetr', 'runtime', 'configs', 'tools', 'tests', 'docs')
    folders = (*folders, 'requirements')
    paths = [path for folder in folders for path in (REPOSITORY / folder).rglob('*')]
    paths += [*REPOSITORY.glob('*.*'), *(REPOSITORY / '.ci').glob('*')]
    kinds = {'.py', '.md', '.sh', '.toml', '.txt', '.json', '.yaml', ''}
    return [path for path in paths if path.is_file() and path.suffix in kinds]


def test_no_path_of_this_machine():
    of_people = re.compile('/(' + '|'.join(('home', 'Users')) + r')/\w')
    own = [str(folder) for folder in (REPOSITORY, Path.home()) if len(folder.parts) > 1]
    wrong = [
        str(path.relative_to(REPOSITORY))
        for path in text_files()
        for text in [path.read_text(encoding='utf-8')]
        if of_people.search(text) or any(f'{folder}/' in text for folder in own)
    ]
    assert wrong == []


@pytest.mark.parametrize('name', ['demo', 'tests'])
def test_readme_blocks_are_short_and_marked_for_ci(name):
    readme = (REPOSITORY / 'README.md').read_text()
    pattern = rf'^<!-- \.ci/run: {name} -->\n```bash\n(.*?)^```$'
    (block,) = re.findall(pattern, readme, flags=re.DOTALL | re.MULTILINE)
    assert 1 <= len(block.splitlines()) <= 3


def test_importing_twice_is_harmless():
    import importlib

    before = sorted(name for _, name in registered())
    importlib.reload(mmdet_rfdetr)
    assert sorted(name for _, name in registered()) == before


def test_heavy_modules_are_there():
    """A module that was moved would be counted as quick."""
    folder = REPOSITORY / 'tests'
    paths = [folder / f'{module}.py' for module in HEAVY]
    assert [path for path in paths if path.parent.is_dir() and not path.exists()] == []


CORE_LINES, WING_LINES, FILE_LINES = 5000, 1100, 450
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def lines_of_code(path):
    """How many lines hold code: no blank ones, comments and docstrings."""
    text, lines = path.read_text(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, 'body', None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines -= set(range(value.lineno, value.end_lineno + 1))
    return len(lines)


def test_lines_of_code_are_counted(tmp_path):
    path = tmp_path / 'some.py'
    path.write_text('"""Text\n\nof two."""\n\n# comment\nx = (\n    1,\n)  # more\n')
    assert lines_of_code(path) == 3


def test_core_wings_and_files_stay_small():
    lines = collections.Counter()
    for path in python_files('mmdet_rfdetr'):
        lines[part_of(path)] += lines_of_code(path)
        assert len(path.read_text().splitlines()) <= FILE_LINES, path
    assert {wing: lines[wing] for wing in WINGS if lines[wing] > WING_LINES} == {}
    assert sum(n for part, n in lines.items() if part not in WINGS) <= CORE_LINES


@pytest.mark.parametrize('name', RUNTIMES)
def test_a_runtime_is_small_and_needs_neither_pytorch_nor_this_package(name):
    lines = 0
    for path in (REPOSITORY / 'runtime' / name).rglob('*.py'):
        lines += lines_of_code(path)
        assert len(path.read_text().splitlines()) <= FILE_LINES, path
        roots = {name.split('.')[0] for name in imported_modules(path)}
        heavy = {'torch', 'mmdet', 'mmengine', 'mmcv', 'mmdet_rfdetr', 'scipy'}
        assert roots & heavy == set(), path
    assert 0 < lines <= WING_LINES
