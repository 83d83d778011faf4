"""The tool that converts data sets."""

import runpy
import sys

import pytest

from tests.fixtures import REPOSITORY

TOOL = REPOSITORY / 'tools' / 'convert_dataset.py'


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the tool on arguments; its exit status and what it printed."""

    def run_tool(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name='__main__')
        said = capsys.readouterr()
        return end.value.code, said.out + said.err

    return run_tool
