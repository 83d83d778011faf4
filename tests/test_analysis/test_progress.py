"""The bar of runs on a terminal, and nothing of it elsewhere."""

import logging
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from mmengine.runner import Runner
from rfdetr_predict.progress import Progress

from mmdet_rfdetr.analysis import RFDETRProgressHook
from tests.factory import project_config, write_coco
from tests.fixtures import REPOSITORY

CODE = """
import sys
import mmdet_rfdetr
from mmengine.config import Config
from mmengine.runner import Runner
from rfdetr_predict import progress
progress._SECONDS = 0, 0
Runner.from_cfg(Config.fromfile(sys.argv[1])).train()
"""


def on_terminal(command):
    """What a command writes to a terminal of 100 columns."""
    parent, child = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, '-c', CODE, command],
        stdout=child,
        stderr=child,
        cwd=REPOSITORY,
        env={**os.environ, 'COLUMNS': '100'},
    )
    os.close(child)
    parts = []

    def read():
        try:
            while part := os.read(parent, 65536):
                parts.append(part)
        except OSError:  # the end of a terminal
            pass

    reader = threading.Thread(target=read)
    reader.start()
    assert run.wait(300) == 0, b''.join(parts)[-2000:]
    reader.join()
    os.close(parent)
    return b''.join(parts).decode()


def screen(text):
    """Lines as a terminal shows them in the end: what follows a return covers."""
    for line in text.replace('\r\n', '\n').split('\n'):
        shown = ''
        for part in line.split('\r'):
            shown = part + shown[len(part) :]
        yield shown.rstrip()


@pytest.mark.long
def test_a_bar_that_breaks_no_line_of_the_log(tmp_path):
    data = write_coco(tmp_path / 'data', [1, 2, 1, 1])
    cfg = project_config(data, tmp_path / 'work')
    cfg.default_hooks.progress = dict(type='RFDETRProgressHook')
    cfg.dump(tmp_path / 'config.py')
    text = on_terminal(tmp_path / 'config.py')
    assert re.search(r'[\r\n]\[#{10}\.{10}\] 1 of 2 batches \(train\), .* left\r', text)
    assert re.search(r'[\r\n]\[#{10}\.{10}\] 1 of 2 batches \(val\), .* left\r', text)
    lines = list(screen(re.sub(r'\x1b\[\d+m', '', text)))
    assert not any(' left' in line or '..]' in line for line in lines)
    for start in (
        'Epoch(train) [1][1/2]',
        'Epoch(train) [1][2/2]',
        'Epoch(val) [1][1/2]',
    ):
        (line,) = (line for line in lines if f' - INFO - {start}' in line)
        assert re.match(r'\d\d/\d\d ', line)


def test_nothing_in_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('rfdetr_predict.progress._SECONDS', (0, 0))
    data = write_coco(tmp_path / 'data', [1, 2, 1, 1])
    cfg = project_config(data, tmp_path / 'work')
    cfg.default_hooks.progress = dict(type='RFDETRProgressHook')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert any(isinstance(hook, RFDETRProgressHook) for hook in runner.hooks)
    assert 'batches' not in ''.join(capsys.readouterr())


def test_lines_in_files_and_a_bar_on_terminals(capsys, monkeypatch):
    monkeypatch.setattr('rfdetr_predict.progress._SECONDS', (0, 0))
    for on_terminal in (False, True):
        monkeypatch.setattr('sys.stderr.isatty', lambda answer=on_terminal: answer)
        progress = Progress(4, what='files')
        progress.step(2)
        progress.reach(4)
        said = capsys.readouterr().err
        if on_terminal:
            assert said.startswith('[##########..........] 2 of 4 files, ')
            assert said.endswith('\r') and '\n' not in said
            assert said.split('\r')[-2].strip() == ''  # and is taken away
        else:
            first, second = said.splitlines()
            assert first.startswith('2 of 4 files, ') and '4 of 4' in second


def test_the_bar_gives_way_to_the_log(capsys, monkeypatch):
    monkeypatch.setattr('rfdetr_predict.progress._SECONDS', (0, 0))
    monkeypatch.setattr('sys.stderr.isatty', lambda: True)
    logger = logging.Logger('some')
    logger.addHandler(logging.StreamHandler(sys.stderr))
    progress = Progress(3, logger=logger)
    progress.step()
    logger.error('short')
    progress.step()
    assert list(screen(capsys.readouterr().err))[0] == 'short'
    progress.step()
    assert logger.filters == []
