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
