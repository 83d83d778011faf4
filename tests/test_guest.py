"""Importing the plugin changes in a process what ``docs/process.md`` lists, no more."""

import json
import re

import pytest

from tests.fixtures import REPOSITORY
from tests.interpreter import run_code

LOOK = """
import json, sys, warnings
warnings.simplefilter('ignore')
from tests import guest
guest.import_everything()

def look():
    return guest.settings(), guest.attributes(), guest.children_of_registries()

before, loaded = look(), set(sys.modules)
import mmdet_rfdetr
with_plugin, loaded = look(), set(sys.modules) - loaded
mmdet_rfdetr.compat.apply_to_model()
with_model = look()
for first, second in ((before, with_plugin), (with_plugin, with_model)):
    print(json.dumps(sum(map(guest.changed, first, second), [])))
print(json.dumps(sorted(loaded)))
"""
# Not in every environment.
SOMETIMES = {
    'dist.utils._init_dist_pytorch',
    'lvis.eval.np',
    'utils.package_utils.is_installed',
    'utils.package_utils.get_installed_path',
}

# Changed by wings, which may have been taken out.
OF_WINGS = {
    'formats': {'config.config.Config.fromstring'},
    'runtime': {
        'mmdet.apis.inference_detector',
        'mmdet.apis.inference.inference_detector',
        'mmdet.apis.det_inferencer.DetInferencer._init_pipeline',
    },
    'speed': {
        'runner.runner.save_checkpoint',
        'runner.runner.Runner.resume',
        'runner.runner._load_checkpoint',
    },
    'analysis': {
        'runner.runner.Runner.setup_env',
        '_strategy.base.BaseStrategy._setup_env',
        'runner.runner.Runner.build_visualizer',
        'runner._flexible_runner.FlexibleRunner.build_visualizer',
        'mmdet.apis.det_inferencer.DetInferencer.visualize',
        'mmdet.engine.hooks.visualization_hook.DetVisualizationHook.after_val_iter',
        'mmdet.engine.hooks.visualization_hook.DetVisualizationHook.after_test_iter',
    },
}


@pytest.fixture(scope='module')
def looked():
    """What was seen: the changes by the import, by a model, and the new modules."""
    result = run_code(LOOK)
    assert result.returncode == 0, result.stderr
    return list(map(json.loads, result.stdout.splitlines()))


@pytest.fixture(scope='module')
def changes(looked):
    """Names of what the import changes, and of what a model changes then."""
    # The same function stands in the modules that import it.
    moved = {'mmengine.utils', 'mmengine.config.config', 'mmengine.hub.hub'}
    return [
        {
            name.removeprefix('mmengine.')
            for name in names
            if name.rpartition('.')[0] not in moved
        }
        for names in looked[:2]
    ]


@pytest.fixture(scope='module')
def listed():
    """Names in the first columns of the two tables of ``docs/process.md``."""
    text = (REPOSITORY / 'docs' / 'process.md').read_text()
    section = text.partition('## What it changes in your process')[2]
    section = section.partition('\n## ')[0]
    tables = section.split('Once an RF-DETR model is built')
    package = REPOSITORY / 'mmdet_rfdetr'
    absent = set().union(
        *(names for wing, names in OF_WINGS.items() if not (package / wing).is_dir())
    )
    return [
        {
            name
            for row in re.findall(r'^\| (`.*?) \|', table, re.MULTILINE)
            for name in re.findall('`([^`]+)`', row)
        }
        - absent
        for table in tables
    ]


def test_importing_changes_what_the_docs_list(changes, listed):
    assert changes[0] - listed[0] == set()
    assert listed[0] - changes[0] <= SOMETIMES


def test_importing_loads_what_mmdetection_has_loaded_and_the_package(looked):
    """What only some runs need is imported by them, as curves, masks or adapters."""
    *_, modules = looked
    assert 'mmdet_rfdetr.models' in modules
    # The rules of points, which import Python's library alone.
    light = {'rfdetr_datasets', 'rfdetr_datasets.files', 'rfdetr_datasets.points'}
    assert {name.partition('.')[0] for name in {*modules} - light} == {'mmdet_rfdetr'}


def test_a_model_changes_what_the_docs_list(changes, listed):
    changed = {name.replace('FUNCTIONS', 'registry.FUNCTIONS') for name in changes[1]}
    assert changed == listed[1]
