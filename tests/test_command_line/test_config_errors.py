"""Configs and options with mistakes in them."""

import gc
import inspect
import re

import pytest
from mmdet.registry import HOOKS, MODELS, PARAM_SCHEDULERS, TRANSFORMS
from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from mmdet_rfdetr.command_line.config_errors import (
    OTHER_SETTINGS,
    check_optimizer,
    merge_options,
    read_config,
    unknown_key,
    unknown_type,
)
from mmdet_rfdetr.errors import ExplainedError, ImageSizeError
from tests.factory import NANO

# mmengine leaves its copy of a broken file open.
pytestmark = [
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
    pytest.mark.filterwarnings('ignore::ResourceWarning'),
]


@pytest.fixture(autouse=True)
def closed_files():
    yield
    gc.collect()


def mistake_in(folder, config):
    """What is said of ``mine.py``; the same must be said of one that inherits."""
    (folder / 'mine.py').write_text(config)
    (folder / 'heir.py').write_text("_base_ = './mine.py'\na = 1\n")
    messages = set()
    for name in ('mine.py', 'heir.py'):
        with pytest.raises(ExplainedError) as caught:
            read_config(str(folder / name))
        messages.add(str(caught.value).replace(str(folder / name), 'IT'))
    (message,) = messages
    return message


def test_a_file_that_is_no_python_is_named_with_the_line(tmp_path):
    said = mistake_in(tmp_path, f'_base_ = {NANO}\nmodel = 1\nx = (\n')
    assert re.match("IT, or .*inherits from: .*never closed in line 3, 'x = \\('", said)


def test_a_missing_base_is_named_with_the_way_to_a_shipped_one(tmp_path):
    assert 'no_such.py: correct the path' in mistake_in(
        tmp_path, "_base_ = './no_such.py'\n"
    )
    said = mistake_in(tmp_path, "_base_ = './rfdetr_nano_coco.py'\n")
    assert f'write _base_ = {NANO}' in said


def test_a_mistake_in_what_a_config_computes_keeps_its_traceback(tmp_path):
    (tmp_path / 'mine.py').write_text('a = 1\nx = b\n')
    with pytest.raises(NameError) as caught:
        read_config(str(tmp_path / 'mine.py'))
    last = caught.traceback[-1]
    assert (last.path.name, last.lineno) == ('mine.py', 1)  # counted from 0


def test_an_error_that_explains_itself_stays_as_it_is(tmp_path):
    resized = "__import__('mmdet_rfdetr').set_image_size(_base_, 1)"
    (tmp_path / 'mine.py').write_text(f'_base_ = {NANO}\n{resized}\n')
    with pytest.raises(ImageSizeError):
        read_config(str(tmp_path / 'mine.py'))


def test_new_style_configs_are_told_to_use_base(tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .base import *\n'
    )
    (tmp_path / 'base.py').write_text(f'_base_ = {NANO}\n')
    with pytest.raises(ExplainedError, match='inherit by _base_'):
        read_config(str(tmp_path / 'mine.py'))


def test_a_module_that_cannot_be_imported_is_named(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("custom_imports = dict(imports=['no_package.data'])\n")
    with pytest.raises(ExplainedError) as caught:
        read_config(str(path))
    assert str(caught.value).startswith(
        f"custom_imports of {path}: No module named 'no_package': install the package"
    )


def test_an_error_inside_an_imported_module_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / 'broken_module.py').write_text('x = undefined\n')
    (tmp_path / 'mine.py').write_text(
        "custom_imports = dict(imports=['broken_module'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NameError):
        read_config(str(tmp_path / 'mine.py'))


# Options


@pytest.fixture
def cfg(tmp_path):
    """A config with a variable that it computes with and one that it does not."""
    path = tmp_path / 'mine.py'
    path.write_text(
        f'_base_ = {NANO}\nfind_unused_parameters = False\nfor_my_hook = 1\n'
        'mine = dict(a=1)\ntrain_cfg = dict(max_epochs=mine["a"])\n'
    )
    return Config.fromfile(path)


@pytest.mark.parametrize(
    'option', ['find_unused_parameters', 'sync_bn', 'for_my_hook', 'model.num_queries']
)
def test_options_that_something_may_read_are_taken(cfg, option):
    merge_options({option: 3}, cfg)
    assert cfg._cfg_dict[option.partition('.')[0]] in (3, cfg.get('model'))


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('mine.a', 'has used this variable already'),
        ('max_epochs', 'has used this variable already'),
        ('optim_wraper.a', 'did you mean optim_wrapper?'),
        ('for_your_hook', 'what your own code reads has to stand in the config file'),
        ('self', 'correct or remove it'),
        ('cfg', "no setting 'cfg'"),
        ('strategy', "no setting 'strategy'"),
    ],
)
def test_options_that_nothing_reads_are_refused(cfg, option, message):
    with pytest.raises(ExplainedError, match=re.escape(message)):
        merge_options({option: 3}, cfg)


def test_the_runner_of_the_config_says_what_it_reads(cfg):
    merge_options({'runner_type': 'FlexibleRunner', 'strategy.type': 'a'}, cfg)
    assert cfg.strategy.type == 'a'


@pytest.mark.parametrize('runner', [Runner, FlexibleRunner])
def test_all_that_mmengine_reads_from_a_config_is_known(runner):
    read = re.findall(r"cfg\.get\(\s*'(\w+)'", inspect.getsource(runner))
    read = {
        name for name in read if f"_cfg.get('{name}'" not in inspect.getsource(runner)
    }
    assert read - {*inspect.signature(runner.__init__).parameters} <= {*OTHER_SETTINGS}
    assert {'custom_hooks', 'load_from'} <= read


# Building


def test_an_optimizer_that_mmengine_does_not_find_is_named():
    with pytest.raises(ExplainedError, match="'AdmaW': did you mean AdamW?"):
        check_optimizer(Config(dict(optim_wrapper=dict(optimizer=dict(type='AdmaW')))))


@pytest.mark.parametrize('registry', [MODELS, TRANSFORMS, HOOKS, PARAM_SCHEDULERS])
def test_a_type_that_is_in_no_registry_is_named_with_one_that_is_like_it(registry):
    name = next(name for name in registry.module_dict if name.startswith('RFDETR'))
    with pytest.raises(KeyError) as caught:
        registry.build(dict(type=f'{name}x'))
    assert f'{registry.name} of type' in unknown_type(caught.value)
    assert f'did you mean {name}?' in unknown_type(caught.value)


def test_other_errors_are_no_mistakes_of_a_config(cfg):
    assert unknown_type(KeyError('a')) is None
    assert unknown_key(TypeError("an unexpected keyword argument 'other'"), cfg) is None
