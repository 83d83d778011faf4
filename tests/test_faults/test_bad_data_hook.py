"""Broken images in runs of mmengine's Runner."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from tests.factory import write_project

BASE = "__import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')"


def config(folder, monkeypatch, **dataset):
    path = write_project(folder, BASE)
    monkeypatch.chdir(folder)
    cfg = Config.fromfile(path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 1
        loader.dataset.type = 'RFDETRCocoDataset'
        loader.dataset.update(dataset)
    cfg.val_evaluator.type = 'RFDETRCocoMetric'
    cfg.work_dir = str(folder / 'work')
    return cfg


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


def test_a_run_goes_on_and_tells_once(tmp_path, monkeypatch):
    cfg = config(tmp_path, monkeypatch)
    cfg.train_cfg.max_epochs = 2
    cut(tmp_path / 'pictures' / '2.png')
    Runner.from_cfg(cfg).train()
    (log,) = (tmp_path / 'work').glob('*/*.log')
    told = [line for line in log.read_text().splitlines() if 'could not be' in line]
    assert len(told) == 2
    assert '1 of 4 images could not be read and were skipped in training' in told[0]
    assert '1 of 4 images could not be read and were taken as black' in told[1]
    assert all(line.endswith('2.png') for line in told)


def test_a_run_stops_under_the_policy_error(tmp_path, monkeypatch):
    cfg = config(tmp_path, monkeypatch, bad_data='error')
    cut(tmp_path / 'pictures' / '2.png')
    runner = Runner.from_cfg(cfg)
    with pytest.raises(Exception, match=r"2\.png: .*with bad_data='skip'"):
        runner.train()
