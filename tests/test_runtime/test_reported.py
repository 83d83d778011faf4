"""The page after ``tools/test.py``: numbers of the metric, pictures of the test."""

import copy
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from PIL import Image

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.runtime.reported import report_after
from tests.factory import CLASSES, loader, project_config, write_coco
from tests.fixtures import REPOSITORY
from tests.test_runtime.report_pages import check_page

SIZE = (48, 64)
NAMES = ('0.png', '1.png', '2.png')


@MODELS.register_module()
class Guesses(BaseDetector):
    """Finds the objects of the samples, somewhat beside, one as another, not all."""

    def __init__(self):
        super().__init__(dict(type='DetDataPreprocessor'))
        self.drawn = torch.Generator().manual_seed(3)

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        for sample in batch_data_samples:
            truth = sample.gt_instances  # loaded after resizing: of the image
            boxes = getattr(truth.bboxes, 'tensor', truth.bboxes)
            count = max(len(boxes) - 1, len(boxes) % 2)
            shift = 3 * torch.rand(count, 4, generator=self.drawn)
            found = InstanceData(
                bboxes=boxes[:count] + shift,
                labels=(truth.labels[:count] + (shift[:, 0] > 2.4)) % 2,
                scores=torch.rand(count, generator=self.drawn),
            )
            if 'masks' in truth:
                found.masks = truth.masks[:count].to_tensor(torch.bool, 'cpu')
            sample.pred_instances = found
        return batch_data_samples

    def extract_feat(self, batch_inputs): ...

    def loss(self, batch_inputs, batch_data_samples): ...

    def _forward(self, batch_inputs, batch_data_samples=None): ...


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_coco(
        tmp_path_factory.mktemp('reported') / 'data',
        [5, 0, 4],
        SIZE,
        image_ids=[4, 2, 0],  # not in order
    )


def guessing(cfg):
    """The config of a test whose numbers are no zeros."""
    cfg.model = dict(type='Guesses')
    for name in ('ema', 'precision', 'health', 'non_finite'):
        cfg.default_hooks.pop(name, None)
    cfg.custom_hooks = []
    return cfg


def read(path):
    with Image.open(path) as image:
        return np.asarray(image, float)


def set_in(cfg, folder):
    """The data set of a folder with the test pipeline of a config."""
    return dict(copy.deepcopy(cfg.test_dataloader.dataset), data_root=str(folder))


def run_with_report(cfg, folder):
    """Run a test with a report; the metrics and the page."""
    runner = Runner.from_cfg(cfg)
    report_after(runner, str(folder), dict(Config='some & <b>.py'))
    metrics = runner.test()
    return metrics, check_page(folder)


@pytest.mark.parametrize('options', [[], ['--tta'], ['--tile', '40']])
def test_the_tool_writes_a_page(
    toy_project, toy_checkpoint, tmp_path, monkeypatch, capsys, options
):
    """With MMDetection's own data set and metric, which rounds."""
    path = REPOSITORY / 'tools' / 'test.py'
    arguments = ['mine.py', toy_checkpoint, '--report', tmp_path / 'page', *options]
    arguments += ['--work-dir', tmp_path / 'work']
    monkeypatch.chdir(toy_project)
    monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name='__main__')
    page = check_page(tmp_path / 'page')
    said = capsys.readouterr().out
    assert f'Look at {tmp_path / "page" / "index.html"}' in said
    expected = re.search(r'coco/bbox_mAP: (\S+) ', said).group(1)
    assert float(page.tiles()['AP']) == pytest.approx(float(expected), abs=1e-9)
    assert 'mine.py' in page.source
    assert ('in tiles of 40' in page.source) == ('--tile' in options)
    assert {'square', 'bar', 'missed', 'false'} <= {
        cell for r in page.rows for cell in r
    }
    assert len(page.links) == 8  # four pictures, each twice
    with Image.open(tmp_path / 'page' / 'pictures' / '001.jpg') as image:
        assert image.size in ((80, 60), (60, 80))


@pytest.mark.parametrize('case', ['file', 'samples', 'mmdet'])
def test_with_and_without_annotation_file(data, tmp_path, case):
    cfg = guessing(project_config(data, tmp_path / 'work'))
    if case == 'mmdet':
        cfg.test_evaluator.update(type='CocoMetric')
        cfg.test_evaluator.pop('engine')
    else:
        cfg.test_evaluator.proposal_nums = (1, 10, 50)
    if case == 'samples':
        cfg.test_evaluator.pop('ann_file')
        pack = cfg.test_dataloader.dataset.pipeline[-1]
        pack.meta_keys = (*pack.meta_keys, 'instances')
    metrics, page = run_with_report(cfg, tmp_path / 'page')
    shown = [f'{metrics[f"coco/bbox_{name}"]:.3f}' for name in ('mAP', 'mAP_50')]
    assert [page.tiles()[name] for name in ('AP', 'AP50')] == shown
    assert 0.1 < metrics['coco/bbox_mAP'] < 0.9
    names, matrix = page.matrix()
    assert names == [*CLASSES, 'false']
    assert (
        matrix[:-1].sum() == 9 and matrix.diagonal().sum() > matrix[:-1, -1].sum() > 0
    )
    assert page.tiles()['AP large'] == '–'
    assert 'some &amp; &lt;b&gt;.py' in page.source
    shown = [each for tag, each in page.tags if tag == 'img']
    assert len(shown) == 4
    for each in shown:  # the picture of this name is nearest
        pixels = read(tmp_path / 'page' / each['src'])
        far = {name: np.abs(read(data / name) - pixels).mean() for name in NAMES}
        assert min(far, key=far.get) == each['alt'].rpartition('/')[2]


def test_data_sets_with_the_same_ids(data, tmp_path):
    other = write_coco(tmp_path / 'other', [1, 3], SIZE, seed=5)
    cfg = guessing(project_config(data, tmp_path / 'work'))
    both = [set_in(cfg, each) for each in (data, other)]
    for each in both:
        each['pipeline'][-1]['meta_keys'] += ('instances',)
    cfg.test_dataloader = loader(dict(type='ConcatDataset', datasets=both))
    cfg.test_evaluator.pop('ann_file')
    metrics, page = run_with_report(cfg, tmp_path / 'page')
    assert page.tiles()['AP'] == f'{metrics["coco/bbox_mAP"]:.3f}' > '0.1'
    assert 'Pictures <b>5</b>' in page.source and 'Objects <b>13</b>' in page.source


def test_each_data_set_has_its_page(data, tmp_path):
    other = write_coco(tmp_path / 'other', [1, 3], SIZE, stem='b', seed=5)
    cfg = guessing(project_config(data, tmp_path / 'work'))
    both = [set_in(cfg, each) for each in (data, other)]
    second = dict(cfg.test_evaluator, ann_file=str(other / 'annotations.json'))
    cfg.test_evaluator = dict(
        type='MultiDatasetsEvaluator',
        metrics=[cfg.test_evaluator, second],
        dataset_prefixes=['day', 'night'],
    )
    cfg.test_dataloader = loader(dict(type='ConcatDataset', datasets=both))
    runner = Runner.from_cfg(cfg)
    report_after(runner, str(tmp_path / 'page'), {})
    metrics = runner.test()
    for name, count in (('day', 3), ('night', 2)):
        page = check_page(tmp_path / 'page' / name)
        assert page.tiles()['AP'] == f'{metrics[f"{name}/coco/bbox_mAP"]:.3f}' > '0.1'
        assert f'Pictures <b>{count}</b>' in page.source


def test_nothing_found(data, tmp_path):
    cfg = project_config(data, tmp_path / 'work')
    cfg.model.test_cfg.score_thr = 1.0
    _, page = run_with_report(cfg, tmp_path / 'page')
    assert page.tiles()['AP'] == '0.000'
    assert page.matrix()[1][:, -1].sum() == page.matrix()[1].sum() == 9


def test_masks(tmp_path):
    project = pytest.importorskip('tests.test_segmentation.project')
    project.write_pictures(tmp_path)
    cfg = guessing(project.shrunk_config(tmp_path))
    metrics, page = run_with_report(cfg, tmp_path / 'page')
    first, second = re.findall(r'<span>AP</span><strong>(.*?)<', page.source)
    assert first == f'{metrics["coco/bbox_mAP"]:.3f}'
    assert second == f'{metrics["coco/segm_mAP"]:.3f}' > '0.1'
    assert 'path' in {tag for tag, _ in page.tags}


def test_a_metric_that_is_none_of_coco_is_refused_before_the_test(data, tmp_path):
    cfg = project_config(data, tmp_path / 'work')
    cfg.test_evaluator = dict(type='VOCMetric', metric='mAP')
    with pytest.raises(SettingError, match='VOCMetric.*RFDETRCocoMetric'):
        run_with_report(cfg, tmp_path / 'page')


@pytest.mark.long
@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs a browser')
def test_a_browser_shows_it(data, tmp_path):
    run_with_report(project_config(data, tmp_path / 'work'), tmp_path / 'page')
    flags = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run'
    flags += ' --disable-background-networking --disable-component-update'
    flags += ' --disable-sync --enable-logging=stderr --virtual-time-budget=2000'
    shot = tmp_path / 'shot.png'
    command = ['chromium', *flags.split(), f'--user-data-dir={tmp_path / "user"}']
    command += [f'--screenshot={shot}', '--window-size=1280,3000']
    address = (tmp_path / 'page' / 'index.html').as_uri()
    shown = subprocess.run([*command, address], capture_output=True, timeout=120)
    assert b'CONSOLE' not in shown.stderr  # of a script that fails, or a missing file
    with Image.open(shot) as image:
        assert image.size == (1280, 3000)
        assert len(image.convert('RGB').getcolors(2**24)) > 200
