"""Loaders and evaluators of a run mean the same classes and images."""

import copy
import json
import re
import shutil

import pytest
from mmdet.registry import DATASETS
from mmengine.registry import EVALUATOR
from mmengine.runner import Runner

from mmdet_rfdetr.class_names import compare_classes
from mmdet_rfdetr.errors import BadDataError, SettingError
from mmdet_rfdetr.faults import class_checks
from mmdet_rfdetr.faults.class_checks import check_evaluator, check_loaders, loaders_of

from ..factory import project_config, write_coco

CLASSES = ('a', 'b', 'c')
DIFFERENT = [
    (('c', 'b', 'a'), 'has another order, from label 0 on'),
    (('a', 'b'), "lacks ('c',)"),
    (('a', 'b', 'c', 'd'), "has ('d',) more"),
]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, range(4))
    return folder


@pytest.fixture
def cfg(data, tmp_path):
    hook = dict(type='RFDETRBadDataHook')
    cfg = project_config(data, tmp_path / 'run', default_hooks=dict(bad_data=hook))
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        del evaluator['engine']  # mmdet's metric has none
    return cfg


def plain(dataset):
    return dataset


def concat(dataset):
    return dict(type='ConcatDataset', datasets=[dataset, dataset])


def repeat(dataset):
    return dict(type='RepeatDataset', dataset=concat(dataset), times=2)


def mix(dataset):
    return dict(type='MultiImageMixDataset', dataset=dataset, pipeline=[])


def balance(dataset):
    return dict(type='ClassBalancedDataset', dataset=dataset, oversample_thr=0.1)


@pytest.mark.parametrize('wrap', [plain, concat, repeat, mix, balance])
@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_loaders_of_different_classes_are_refused(cfg, wrap, split):
    loader = cfg[f'{split}_dataloader']
    loader.dataset = wrap(loader.dataset)
    check_loaders(loaders_of(cfg))
    inner = loader.dataset
    while 'type' not in inner or inner.type != 'RFDETRCocoDataset':
        inner = inner.get('dataset') or inner.datasets[0]
    for classes, difference in DIFFERENT:
        inner.metainfo = dict(classes=classes)
        if split == 'train':  # the others are compared with it
            difference = compare_classes(classes, CLASSES)
        with pytest.raises(SettingError) as error:
            check_loaders(loaders_of(cfg))
        words = str(error.value)
        assert difference in words or 'in different ways' in words
        assert {str(CLASSES), str(classes)} <= set(re.findall(r'\(.*?\)', words))


def test_classes_of_a_file_of_names_are_compared(cfg, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('a\nb\nc\n')
    cfg.test_dataloader.dataset.metainfo = dict(classes=str(names))
    check_loaders(loaders_of(cfg))
    names.write_text('a\nc\nb\n')
    with pytest.raises(SettingError, match='train_dataloader and test_dataloader'):
        check_loaders(loaders_of(cfg))


@pytest.mark.parametrize('split', ['val', 'test'])
def test_a_run_ends_before_the_first_step(cfg, split, data, tmp_path):
    """A file in another order is no difference, another list is."""
    document = json.loads((data / 'annotations.json').read_text())
    document['categories'].reverse()
    path = str(tmp_path / 'reversed.json')
    with open(path, 'w') as file:
        json.dump(document, file)
    loader = cfg[f'{split}_dataloader']
    loader.dataset.ann_file = cfg[f'{split}_evaluator'].ann_file = path
    loader.dataset.metainfo = dict(classes=CLASSES[::-1])
    runner = Runner.from_cfg(cfg)
    with pytest.raises(SettingError, match='another order'):
        runner.train()
    assert runner.iter == 0


def another_set(cfg, folder, **change):
    """Give the validation images of its own, of the same ids."""
    write_coco(folder, range(4), **change)
    dataset = cfg.val_dataloader.dataset
    dataset.data_root = str(folder)
    return folder


def test_an_evaluator_of_another_file_is_found_before_the_first_step(
    cfg, data, tmp_path
):
    folder = another_set(cfg, tmp_path / 'other')
    document = json.loads((folder / 'annotations.json').read_text())
    for image in document['images']:
        name = image['file_name']
        image['file_name'] = f'other_{name}'
        (folder / name).rename(folder / f'other_{name}')
    (folder / 'annotations.json').write_text(json.dumps(document))
    runner = Runner.from_cfg(cfg)
    with pytest.raises(BadDataError, match='ann_file') as error:
        runner.train()
    assert runner.iter == 0
    for path in (data, folder):
        assert str(path / 'annotations.json') in str(error.value)


@pytest.mark.parametrize('kind', ['RFDETRCocoMetric', 'CocoMetric'])
def test_images_of_another_size_are_others(cfg, data, tmp_path, kind):
    """Of the same names and ids, as frames of two videos are."""
    folder = another_set(cfg, tmp_path / 'other', size=(64, 96))
    cfg.val_evaluator.type = kind
    cfg.val_evaluator.pop('engine')  # which mmdet's does not have
    runner = Runner.from_cfg(cfg)
    with pytest.raises(BadDataError, match='48 x 64 .* 64 x 96') as error:
        runner.val()
    assert str(folder / 'annotations.json') in str(error.value)


def test_another_file_of_the_same_images_is_logged(cfg, data, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        class_checks, 'print_log', lambda text, logger: lines.append(text)
    )
    corrected = str(shutil.copy(data / 'annotations.json', tmp_path / 'corrected.json'))
    for path in (corrected, cfg.val_evaluator.ann_file):
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        metric = dict(cfg.val_evaluator, ann_file=path)
        evaluator = EVALUATOR.build(dict(type='Evaluator', metrics=metric))
        evaluator.dataset_meta = dataset.metainfo
        check_evaluator(dataset, evaluator)
    (line,) = lines
    assert f'its evaluator {corrected}; their images have the same names' in line


def test_mmdets_metric_needs_the_order_of_the_file(cfg):
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=('c', 'a', 'b'))
    cfg.test_evaluator.type = 'CocoMetric'
    cfg.test_evaluator.pop('engine')
    runner = Runner.from_cfg(cfg)
    with pytest.raises(BadDataError, match="another order.*type='RFDETRCocoMetric'"):
        runner.test()
    cfg.test_evaluator.type = 'RFDETRCocoMetric'
    Runner.from_cfg(cfg).test()


def test_several_validation_sets_have_a_metric_each(cfg, data, tmp_path):
    folder = another_set(cfg, tmp_path / 'other', size=(64, 96))
    other = copy.deepcopy(cfg.val_dataloader.dataset)
    cfg.val_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[cfg.test_dataloader.dataset, other]
    )
    metrics = [
        dict(cfg.val_evaluator, ann_file=str(path / 'annotations.json'))
        for path in (data, folder)
    ]
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    for order in (metrics, metrics[::-1]):
        evaluator = EVALUATOR.build(
            dict(
                type='MultiDatasetsEvaluator',
                metrics=order,
                dataset_prefixes=['x', 'y'],
            )
        )
        evaluator.dataset_meta = dataset.metainfo
        if order is metrics:
            check_evaluator(dataset, evaluator)
            continue
        with pytest.raises(BadDataError, match='are not those of'):
            check_evaluator(dataset, evaluator)
    evaluator.metrics.pop()  # the other set would not be evaluated
    for data_set in (dataset, dataset.datasets[0]):
        with pytest.raises(SettingError, match='data sets, 1 metrics and 2 dataset_'):
            check_evaluator(data_set, evaluator)


def test_one_metric_needs_one_meaning_of_a_label(cfg):
    parts = [
        dict(cfg.test_dataloader.dataset, metainfo=dict(classes=names))
        for names in (CLASSES, CLASSES[::-1])
    ]
    dataset = DATASETS.build(dict(type='ConcatDataset', datasets=parts))
    evaluator = EVALUATOR.build(
        dict(type='Evaluator', metrics=dict(cfg.val_evaluator, ann_file=None))
    )
    with pytest.raises(SettingError, match='number classes in different ways'):
        check_evaluator(dataset, evaluator)


def test_samples_carry_their_ground_truth(cfg):
    """For a metric without a file: not resized with the image."""
    settings = cfg.val_dataloader.dataset
    settings.pipeline[-1].meta_keys += ('instances',)
    dataset = DATASETS.build(settings)
    sample = dataset[2]['data_samples'].to_dict()
    assert sample['instances'] == dataset.get_data_info(2)['instances'] != []


def test_mmdets_data_set_needs_the_order_of_the_file_in_evaluation(cfg):
    """Its labels are those of the loss and of the pictures of a validation."""
    cfg.val_dataloader.dataset.update(
        type='CocoDataset', metainfo=dict(classes=('c', 'a', 'b'))
    )
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    evaluator = EVALUATOR.build(dict(type='Evaluator', metrics=cfg.val_evaluator))
    evaluator.dataset_meta = dataset.metainfo
    with pytest.raises(BadDataError, match="another order.*type='RFDETRCocoDataset'"):
        check_evaluator(dataset, evaluator)
