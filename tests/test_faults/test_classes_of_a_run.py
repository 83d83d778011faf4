"""A run whose classes do not fit together stops before its first step."""

import copy
import json

import pytest
from mmengine.runner import Runner

from mmdet_rfdetr.errors import BadDataError, ExplainedError
from tests.factory import project_config, write_coco


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, range(5))  # image n has n objects
    return folder


def told(runner, train=True):
    """What a run warns of."""
    lines = []
    runner.logger.warning = lines.append
    if train:
        runner.train()
    return lines


def detector(data, folder, **changes):
    cfg = project_config(data, folder, **changes)
    cfg.default_hooks.bad_data = dict(type='RFDETRBadDataHook')
    return cfg


def test_a_class_that_the_annotations_lack(data, tmp_path):
    cfg = detector(data, tmp_path)
    cfg.train_dataloader.dataset.type = 'CocoDataset'
    cfg.train_dataloader.dataset.metainfo = dict(classes=('a', 'zebra', 'c'))
    runner = Runner.from_cfg(cfg)
    message = r"lack \('zebra',\). File: \('a', 'b', 'c'\); metainfo.classes: .*zebra"
    with pytest.raises(BadDataError, match=message):
        runner.train()


@pytest.mark.parametrize('kind', ['CocoDataset', 'RFDETRCocoDataset'])
def test_classes_in_another_order_than_in_the_file(data, tmp_path, kind):
    """mmdet's data set numbers them in the order of the file, ours by name."""
    cfg = detector(data, tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=('c', 'a', 'b'))
    cfg.train_dataloader.dataset.type = kind
    cfg.val_evaluator.type = 'RFDETRCocoMetric'
    runner = Runner.from_cfg(cfg)
    if kind == 'RFDETRCocoDataset':
        assert told(runner) == []
        return
    with pytest.raises(BadDataError, match="another order.*type='RFDETRCocoDataset'"):
        runner.train()


def test_a_model_of_too_few_classes(data, tmp_path):
    cfg = detector(data, tmp_path, **{'model.bbox_head.num_classes': 2})
    with pytest.raises(
        ExplainedError, match='3 classes, and model.bbox_head.num_classes is 2'
    ):
        Runner.from_cfg(cfg).train()


def test_a_model_whose_labels_are_category_ids(data, tmp_path):
    cfg = detector(data, tmp_path, **{'model.bbox_head.num_classes': 91})
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.save_best = None
    cfg.custom_hooks = []
    lines = told(Runner.from_cfg(cfg))
    (line,) = (line for line in lines if '3 classes' in line)
    assert 'model.bbox_head.num_classes is 91' in line


def test_parts_of_the_data_with_fewer_classes(data, tmp_path):
    """As one data set of people beside one of everything."""
    cfg = detector(data, tmp_path)
    document = json.loads((data / 'annotations.json').read_text())
    del document['categories'][2]
    document['annotations'] = [a for a in document['annotations'] if not a['id'] % 3]
    for annotation in document['annotations']:
        annotation['category_id'] = document['categories'][0]['id']
    (tmp_path / 'part.json').write_text(json.dumps(document))
    whole = cfg.train_dataloader.dataset
    part = copy.deepcopy(whole)
    part.update(ann_file=str(tmp_path / 'part.json'), metainfo=dict(classes=('a', 'b')))
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[whole, part], ignore_keys=['classes']
    )
    lines = told(Runner.from_cfg(cfg))
    assert not [line for line in lines if 'classes' in line]
