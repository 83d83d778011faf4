"""The command line tools in this process."""

import runpy
import sys

import pytest

from mmdet_rfdetr.command_line import running as cli
from tests.fixtures import REPOSITORY


@pytest.fixture
def tool(toy_project, monkeypatch):
    """Run a tool in this process, where every warning is an error."""

    def run_tool(name, *arguments):
        path = REPOSITORY / 'tools' / name
        monkeypatch.chdir(toy_project)
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name='__main__')

    return run_tool


@pytest.fixture
def built(monkeypatch):
    """Catch the config that a tool would run, instead of running it."""
    seen = []

    def catch(cfg, action, trust_checkpoint):
        seen.append(cfg)

    monkeypatch.setattr(cli, 'run', catch)
    return seen


@pytest.fixture
def train_on(tmp_path, monkeypatch, capsys):
    """Run the tool in this process in an empty folder; gives what it printed."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')

    def run(*arguments):
        path = REPOSITORY / 'tools' / 'train_on.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name='__main__')
        return capsys.readouterr().out

    return run
