"""What docs/segmentation.md shows is what there is."""

import re
import shutil

import pytest
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_rfdetr import config
from tests.fixtures import REPOSITORY
from tests.test_segmentation.project import write_pictures

TEXT = (REPOSITORY / 'docs' / 'segmentation.md').read_text()


def test_the_config_loads_masks_and_evaluates_them(tmp_path, monkeypatch):
    (block,) = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
    folder = tmp_path / 'data' / 'mine'
    folder.mkdir(parents=True)
    write_pictures(folder)
    for name in ('train.json', 'val.json'):
        shutil.copy(folder / 'annotations.json', folder / name)
    (tmp_path / 'mine.py').write_text(block)
    monkeypatch.chdir(tmp_path)
    init_default_scope('mmdet')
    cfg = Config.fromfile('mine.py')
    for loader in ('train', 'val', 'test'):
        dataset = DATASETS.build(cfg[f'{loader}_dataloader'].dataset)
        assert len(dataset) == 4
        assert len(dataset[0]['data_samples'].gt_instances.masks) > 0
    assert METRICS.build(cfg.test_evaluator).metrics == ['bbox', 'segm']
    assert cfg.model.bbox_head.num_classes == 2


@pytest.mark.parametrize(
    'variant', ['preview', 'nano', 'small', 'medium', 'large', 'xlarge', '2xlarge']
)
def test_the_table_of_variants_is_that_of_the_configs(variant):
    cfg = Config.fromfile(config(f'rfdetr-seg_{variant}_coco.py'))
    windows, side = cfg.model.backbone.num_windows, cfg.image_size
    cells = (
        f'`{variant}`',
        side,
        f'{windows} x {windows}',
        cfg.model.decoder.num_layers,
        cfg.model.num_queries,
        f'{side // 4} x {side // 4}',
    )
    assert '| ' + ' | '.join(map(str, cells)) + ' |' in TEXT
