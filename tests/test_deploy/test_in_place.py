"""An exported file in the test loop, in the place of the network."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from rfdetr_runtime.backends import openvino_core

from mmdet_rfdetr.errors import ExplainedError, SettingError
from mmdet_rfdetr.runtime.exported_file import evaluate, use_file
from tests.fixtures import REPOSITORY
from tests.interpreter import run
from tests.runs import forget_runs


def figures(project, path, **changes):
    forget_runs()
    return evaluate(project.config(**changes), str(path), project.folder / 'logs')


@pytest.mark.parametrize(
    'layout', ['official', pytest.param('detections', marks=pytest.mark.long)]
)
def test_the_same_loop_gives_the_figures_of_the_model(project, layout):
    options = dict(batch=2, layout='detections')
    if layout == 'official':
        options = dict(batch=None, notes='of mine')
    path, _ = project.exported(**options)
    ours, theirs = figures(project, path), figures(project, project.checkpoint)
    assert theirs['coco/bbox_mAP_50'] > 0
    assert {name: ours[name] for name in theirs if 'bbox' in name} == pytest.approx(
        {name: value for name, value in theirs.items() if 'bbox' in name}, abs=1e-4
    )


def test_a_file_of_other_classes_is_refused(project):
    path, _ = project.exported(batch=None, notes='of mine')
    config = project.config()
    config.test_dataloader.dataset.metainfo.classes = ('a', 'c', 'b')
    with pytest.raises(SettingError, match='order'):
        use_file(config, str(path))


def test_the_size_of_a_file_is_said_where_it_is_another_one(project):
    path, _ = project.exported(batch=None, notes='of mine')
    config = project.config()
    said = []
    with pytest.MonkeyPatch.context() as patch:
        name = 'mmdet_rfdetr.runtime.exported_file.print_log'
        patch.setattr(name, lambda text, **_: said.append(text))
        use_file(config, str(path))
        assert not said
        config.test_dataloader.dataset.pipeline[1].sizes = [(40, 32)]
        use_file(config, str(path))
    assert '(32, 32)' in said[0] and '(40, 32)' in said[0]


def test_a_file_cannot_be_trained(project):
    path, _ = project.exported(batch=None, notes='of mine')
    config = project.config()
    use_file(config, str(path))
    model = MODELS.build(config.model)
    with pytest.raises(SettingError, match=path.name):
        model.loss(None, None)
    assert config.test_dataloader.dataset.pipeline[1].sizes == [(32, 32)]
    assert set(config.default_hooks) == {'logger', 'checkpoint'}


def test_a_precision_that_the_runtime_ignores_is_noticed(project):
    """OpenVINO says nothing where the processor does not have it."""
    path, _ = project.exported(to='openvino', batch=None)
    offers = openvino_core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    exact = figures(project, path)
    for name, capability in (('bfloat16', 'BF16'), ('float16', 'FP16')):
        asked = {'model.precision': dict(device_type='cpu', dtype=name)}
        if capability in offers:
            assert figures(project, path, **asked) != exact
        else:
            with pytest.raises(ExplainedError, match=f'{name}.*ignore'):
                figures(project, path, **asked)


def test_a_precision_of_another_runtime_is_refused(project):
    path, _ = project.exported(batch=None, notes='of mine')
    asked = {'model.precision': dict(device_type='cpu', dtype='bfloat16')}
    with pytest.raises(ExplainedError, match='bfloat16.*OpenVINO'):
        figures(project, path, **asked)


@pytest.mark.parametrize(
    'to', ['onnx', 'openvino', pytest.param('pt2', marks=pytest.mark.long)]
)
def test_the_test_tool_takes_a_file(project, to, monkeypatch, capsys, tmp_path):
    options = dict(notes='of mine') if to == 'onnx' else dict(to=to)
    path, _ = project.exported(**options, batch=None)
    project.config().dump(project.folder / 'mine.py')
    said = []
    for tested in (path, project.checkpoint):
        forget_runs()
        tool = str(REPOSITORY / 'tools' / 'test.py')
        arguments = [tool, str(project.folder / 'mine.py'), str(tested)]
        report = tmp_path / str(len(said))
        arguments += ['--report', str(report)]
        monkeypatch.setattr(sys, 'argv', arguments)
        runpy.run_path(tool, run_name='__main__')
        text = capsys.readouterr().out
        said.append(dict(re.findall(r'coco/(bbox_mAP\w*): (\S+)', text)))
        assert Path(tested).name in (report / 'index.html').read_text()
    assert float(said[0]['bbox_mAP_50']) > 0
    assert said[0] == said[1]


@pytest.mark.slow
def test_the_benchmark_takes_a_file(project):
    path, _ = project.exported(batch=None, notes='of mine')
    config = project.folder / 'mine.py'
    project.config().dump(config)
    options = ['--rounds', '2', '--samples', '1', '--images', '1', '--threads', '1']
    weights = ['--checkpoint', project.checkpoint, '--exported', path]
    measured = run([sys.executable, 'tools/benchmark.py', config, *weights, *options])
    assert measured.returncode == 0, measured.stderr
    assert path.name in measured.stdout


@pytest.mark.long
def test_the_tool_exports(project):
    config = project.folder / 'mine.py'
    project.config().dump(config)
    command = [sys.executable, 'tools/export.py', config, project.checkpoint]
    done = run([*command, '--shape', '32', '40', '--batch', 'dynamic', '--evaluate'])
    assert done.returncode == 0, done.stderr
    assert 'batch 2' in done.stdout and 'bbox_mAP: model' in done.stdout
    assert 'Warning' not in done.stderr
    assert (project.folder / 'weights.onnx').is_file()
    refused = run([*command, '--shape', '32', '30'])
    assert refused.returncode == 1
    assert refused.stderr.startswith('error: ') and refused.stderr.count('\n') == 1
