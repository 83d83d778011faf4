"""The fragments of docs/recipes.md, taken from there and run."""

import json
import re

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config

from tests.factory import ANIMALS, coco, write
from tests.fixtures import REPOSITORY

TEXT = (REPOSITORY / 'docs' / 'recipes.md').read_text()
START, *FRAGMENTS = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
OF_DATA = [text for text in FRAGMENTS if 'train_dataloader' in text]
NAMES = ('Mosaic', 'CopyPaste', 'Albu', 'ClassBalancedDataset')


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with data/mine, in which configs are read."""
    folder = tmp_path / 'data' / 'mine'
    data = coco((3, 1, 4, 2), (60, 80), classes=ANIMALS)
    write(folder / 'images', data, data)
    (folder / 'train.json').write_text(json.dumps(data))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(project, fragment):
    path = project / 'mine.py'
    path.write_text(START + fragment)
    return Config.fromfile(path)


@pytest.mark.parametrize(('name', 'fragment'), [*zip(NAMES, OF_DATA, strict=True)])
def test_fragments_give_samples(project, name, fragment):
    if name == 'Albu':
        pytest.importorskip('albumentations')
    assert f"'{name}'" in fragment
    dataset = DATASETS.build(read(project, fragment).train_dataloader.dataset)
    np.random.seed(0)
    samples = [dataset[index] for index in range(4)] * 2
    assert {sample['inputs'].shape for sample in samples} == {(3, 384, 384)}
    assert sum(len(sample['data_samples'].gt_instances) for sample in samples) > 8


def test_precision_of_each_class(project):
    cfg = read(project, FRAGMENTS[-1])
    assert (
        cfg.test_evaluator.classwise and cfg.test_evaluator.type == 'RFDETRCocoMetric'
    )
