"""Configs and options with mistakes in them."""

import gc
import inspect
import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS,
    PARAM_SCHEDULERS,
    Registry,
)
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from mmdet_rfdetr.command_line.config_errors import (
    OTHER_SETTINGS,
    building_mistake,
    merge_options,
    read_config,
)
from mmdet_rfdetr.errors import ExplainedError, ImageSizeError
from tests.project import NANO
from tests.test_checkpoints.models import tiny_config

# mmengine leaves its copy of a broken file open.
pytestmark = [
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
    pytest.mark.filterwarnings('ignore::ResourceWarning'),
]


@pytest.fixture(autouse=True)
def closed_files():
    yield
    gc.collect()


def mistake_in(folder, config, base="_base_ = './base.py'\n"):
    """Read a config file ``mine.py``, and one that inherits from it."""
    (folder / 'mine.py').write_text(config)
    (folder / 'heir.py').write_text("_base_ = './mine.py'\na = 1\n")
    messages = []
    for name in ('mine.py', 'heir.py'):
        with pytest.raises(ExplainedError) as caught:
            read_config(str(folder / name))
        messages.append(str(caught.value).replace(str(folder), '.'))
    return messages


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('a = 1\nx = (\n', r"./mine.py, line 2: '\(' was never closed: correct"),
        ('a = 1\nx = b\n', "./mine.py, line 2: NameError: name 'b' is not defined"),
        ("\nx = open('no.txt')\n", './mine.py, line 2: FileNotFoundError: .*no.txt'),
        ("\nx = {}['k']\n", './mine.py, line 2: KeyError: k: correct the file'),
        (
            '\nx = __import__("json").loads("(")\n',
            './mine.py, line 2: JSONDecodeError: .*: correct the file',
        ),
        (
            f'_base_ = {NANO}\nmodel = 1\ntrain_cfg = dict(_delete_=True)\nx = {{\n',
            "./mine.py, line 4: '{' was never closed",
        ),
        (
            f'_base_ = {NANO.replace("nano", "nan")}\n',
            "./mine.py: FileNotFoundError: No config 'rfdetr_nan_coco.py' in",
        ),
        (
            f'_base_ = {NANO}\nmodel = 1\nload_from = dict(a=1)\n',
            './mine.py: TypeError',
        ),
        ("_base_ = ['./a.py', './a.py']\n", 'the _base_ of ./mine.py, ./a.py, cannot'),
    ],
)
def test_the_file_and_line_at_fault_are_named(config, message, tmp_path):
    for said in mistake_in(tmp_path, config):
        assert re.match(message, said), said


def test_a_missing_base_is_named_with_the_way_to_a_shipped_one(tmp_path):
    for said in mistake_in(tmp_path, "_base_ = './rfdetr_nano_coco.py'\n"):
        assert said == (
            'the _base_ of ./mine.py, ./rfdetr_nano_coco.py, cannot be read (No such '
            f'file or directory): write _base_ = {NANO}.'
        )


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
    with pytest.raises(ExplainedError, match='base.py: .* inherit by _base_ in .*mine'):
        read_config(str(tmp_path / 'mine.py'))


def test_a_module_that_cannot_be_imported_is_named(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("custom_imports = dict(imports=['no_package.data'])\n")
    with pytest.raises(ExplainedError) as caught:
        read_config(str(path))
    assert str(caught.value).startswith(
        f"custom_imports of {path}: No module named 'no_package': correct the name"
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
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type='DefaultOptimWrapperConstructor',
            optim_wrapper_cfg=dict(optimizer=dict(type='AdmaW', lr=1.0)),
        )
    )
    with pytest.raises(TypeError) as caught:
        constructor(nn.Linear(1, 1))
    assert "no optimizer of type 'AdmaW': did you mean AdamW?" in building_mistake(
        caught.value
    )


@pytest.mark.parametrize(
    ('key', 'mistake'),
    [
        ('decoder.num_layer', "keyword argument 'num_layer': correct this key"),
        ('size', "keyword argument 'size': correct this key"),
    ],
)
def test_an_unknown_key_is_named_where_a_part_hands_it_on(key, mistake):
    model = Config(tiny_config())
    model.merge_from_dict({key: 3})
    with pytest.raises(TypeError) as caught:
        MODELS.build(model._cfg_dict)
    assert mistake in building_mistake(caught.value)


@pytest.mark.parametrize(
    ('new', 'more', 'message'),
    [
        (
            "type='CosineAnnealingLR', T_max=3",
            '',
            "unexpected keyword argument 'preset': correct this key",
        ),
        (
            "_delete_=True, type='MultiStepLR'",
            'milestones=[1]',
            "missing 1 required positional argument: 'milestones': set this key",
        ),
        (
            "type='MultiStepLR'",
            'milestones=[1]',
            "missing 1 required keyword-only argument: 'milestones': set this key",
        ),
    ],
)
def test_a_type_that_is_changed_alone_earns_a_hint_that_is_right(
    new, more, message, tmp_path
):
    def build(changes):
        path = tmp_path / 'mine.py'
        path.write_text(f'_base_ = {NANO}\nparam_scheduler = dict({changes})\n')
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        return PARAM_SCHEDULERS.build(
            Config.fromfile(path).param_scheduler,
            default_args=dict(optimizer=optimizer, epoch_length=2),
        )

    with pytest.raises(TypeError) as caught:
        build(new)
    said = building_mistake(caught.value)
    assert message in said
    assert '--cfg-options; a config that changes the type' in said
    assert '_delete_=True beside the new type' in said
    assert build(f'_delete_=True, {new.removeprefix("_delete_=True, ")}, {more}')


def test_a_misspelt_key_of_a_data_loader_is_named():
    loader = dict(batch_size=1, dataset=[1], sampler=[0], num_worker=0)
    with pytest.raises(TypeError) as caught:
        Runner.build_dataloader(loader)
    assert "keyword argument 'num_worker': correct" in building_mistake(caught.value)


def test_an_unknown_argument_that_is_no_key_is_a_fault_of_the_code():
    class Part:
        def __init__(self):
            nn.Linear(1, 1, size=1)

    registry = Registry('part')
    registry.register_module(module=Part)
    with pytest.raises(TypeError) as caught:
        registry.build(dict(type='Part'))
    assert building_mistake(caught.value) is None


@pytest.mark.parametrize('error', [KeyError('a'), TypeError('b')])
def test_other_errors_are_no_mistakes_of_a_config(error):
    with pytest.raises(type(error)) as caught:
        raise error
    assert building_mistake(caught.value) is None
