"""Tests do not see the runs of other tests in the same process."""

import shutil

import pytest
from mmengine.logging import MMLogger
from mmengine.runner import FlexibleRunner

from tests.toy import Toy, runner


@pytest.mark.parametrize('test', ('first', 'second'))
def test_a_run_of_an_earlier_test_is_forgotten(test):
    # A name that was given before is a warning, and so an error.
    MMLogger.get_instance('run of one second', log_level='INFO')


def build(folder, monkeypatch, second=1e9, **settings):
    with monkeypatch.context() as patch:
        patch.setattr('time.time', lambda: second)
        return runner(
            folder,
            default_hooks=dict(logger=dict(type='LoggerHook', interval=5)),
            visualizer=dict(
                type='DetLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
                name='visualizer',
            ),
            experiment_name='fold',
            **settings,
        )


def scalars(folder):
    (path,) = folder.glob('*/vis_data/scalars.json')
    return len(path.read_text().splitlines())


def test_runs_of_one_second_have_their_own_state_log_and_folder(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ('one', 'two', 'three')]
    for folder in folders:
        run = build(folder, monkeypatch)
        assert not run.message_hub.log_scalars
        run.train()
        assert run.message_hub.get_info('epoch') == 1
        shutil.rmtree(tmp_path / 'one', ignore_errors=True)
    assert not folders[0].exists()
    assert [scalars(folder) for folder in folders[1:]] == [6, 6]
    logs = [
        path.read_text() for folder in folders[1:] for path in folder.glob('*/*.log')
    ]
    assert len(logs) == 2
    assert all(log.count('Epoch(train)') == 4 for log in logs)


def test_runs_of_one_second_and_folder_have_folders_in_it(tmp_path, monkeypatch):
    names = [build(tmp_path, monkeypatch).timestamp for _ in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == names
    assert len(set(names)) == 3


def test_a_run_after_one_that_failed_writes_into_its_own_folder(tmp_path, monkeypatch):
    class Broken(Toy):
        def train_step(self, data, optim_wrapper):
            raise ValueError('broken')

    with pytest.raises(ValueError, match='broken'):
        build(tmp_path / 'one', monkeypatch, model=Broken()).train()
    with pytest.raises(TypeError, match='model'):
        build(tmp_path / 'two', monkeypatch, model='no model')
    build(tmp_path / 'three', monkeypatch).train()
    assert scalars(tmp_path / 'three') == 6
    assert not list(tmp_path.glob('[ot][nw]*/*/vis_data/scalars.json'))


def test_flexible_runs_of_one_second_are_two(tmp_path, monkeypatch):
    settings = dict(name='mine', vis_backends=[dict(type='LocalVisBackend')])
    runs = []
    with monkeypatch.context() as patch:
        patch.setattr('time.time', lambda: 1e9)
        for name in ('one', 'two'):
            visualizer = dict(settings, type='Visualizer')
            runs.append(
                FlexibleRunner(
                    model=Toy(), work_dir=str(tmp_path / name), visualizer=visualizer
                )
            )
    one, two = runs
    assert one.experiment_name != two.experiment_name
    assert one.message_hub is not two.message_hub
    assert one.visualizer is not two.visualizer
