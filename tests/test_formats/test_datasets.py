"""Data sets of other formats: the checks, the findings and the metric of COCO's."""

import json
import re

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.runner import Runner
from rfdetr_convert import write_settings
from rfdetr_convert import write_yolo as write_labels
from rfdetr_datasets import find_dataset

from mmdet_rfdetr.errors import BadDataError, SettingError
from mmdet_rfdetr.faults.check import check_config
from mmdet_rfdetr.faults.findings import Finding
from tests import factory
from tests.fixtures import DATA, needs_data
from tests.test_datasets.folders import OBJECT, draw, voc, write, xml, yolo
from tests.test_segmentation import project

CLASSES = ('cat', 'dog')
CAT, DOG = ('cat', 0, (5, 6, 15, 16)), ('dog', 0, (10, 20, 60, 40))
HEADER = 'filename,class,xmin,ymin,xmax,ymax\n'


def write_yolo(folder):
    lines = '0 0.5 0.5 0.5 0.25\n1 0.2 0.2 0.3 0.3', '1 0.4 0.5 0.2 0.25'
    return f'{yolo(folder, lines)}#train'


def write_voc(folder):
    hard = OBJECT.format('cat', 1, 30, 10, 50, 30)
    voc(folder, a=xml(CAT, DOG), b=xml(DOG, hard, size=(50, 100), name='b.png'))
    return str(folder / 'Annotations')


def write_csv(folder):
    draw(folder)
    rows = 'a.png,cat,5,6,15,16\na.png,dog,10,20,60,40\nb.png,dog,3,3,50,30\n'
    write(folder / 'boxes.csv', f'{HEADER}{rows}')
    return str(folder / 'boxes.csv')


WRITERS = dict(
    RFDETRYoloDataset=write_yolo, RFDETRVocDataset=write_voc, RFDETRCsvDataset=write_csv
)


def settings(kind, ann_file, **changes):
    config = dict(
        type=kind,
        ann_file=ann_file,
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        pipeline=[],
    )
    return config | changes


def as_coco(folder, split, name='coco.json'):
    """The same data set as a COCO file, read by the same classes of the package."""
    document = json.loads(json.dumps(split.document()))
    for number, annotation in enumerate(document['annotations'], start=1):
        annotation['id'] = number
    path = folder / name
    path.write_text(json.dumps(document))
    prefix = dict(img=split.image_root)
    return settings('RFDETRCocoDataset', str(path), data_prefix=prefix)


def contents(dataset):
    return [
        {key: info[key] for key in ('img_path', 'height', 'width', 'instances')}
        for info in map(dataset.get_data_info, range(len(dataset)))
    ]


def objects(dataset, digits=6):
    """Image, class and box of each, rounded to so many digits of a pixel."""
    return [
        [info['img_path'].rpartition('/')[2], each['bbox_label'], each['ignore_flag']]
        + [round(number, digits) for number in each['bbox']]
        for info in contents(dataset)
        for each in info['instances']
    ]


def evaluate(dataset, ann_file, near=None):
    """The metric of detections that are parts of objects, two of each.

    Args:
        dataset: what is evaluated.
        ann_file: of the evaluator.
        near: data set near whose objects the detections are; the same if left out.
    """
    rng = np.random.default_rng(0)
    metric = METRICS.build(
        dict(type='RFDETRCocoMetric', ann_file=ann_file, metric='bbox', classwise=True)
    )
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        truth = (near or dataset).get_data_info(index)['instances']
        boxes = np.array([each['bbox'] for each in truth]).reshape(-1, 4)
        boxes = np.concatenate([boxes, boxes])
        # No overlap lies at a threshold, where a thousandth of a pixel would decide.
        parts = rng.choice([1, 0.92, 0.87, 0.72, 0.53, 0.42], len(boxes))
        boxes[:, 2] = boxes[:, 0] + (boxes[:, 2] - boxes[:, 0]) * parts
        labels = np.array([each['bbox_label'] for each in truth] * 2, dtype=int)
        found = dict(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            labels=torch.tensor(labels),
            scores=torch.tensor(rng.random(len(labels)).round(1)),
        )
        sample = dict(
            img_id=info['img_id'],
            img_path=info['img_path'],
            ori_shape=(info['height'], info['width']),
            instances=info['instances'],
            pred_instances=found,
        )
        metric.process({}, [sample])
    return metric.evaluate(len(dataset))


@pytest.mark.parametrize('kind', WRITERS)
def test_objects_and_metric_are_those_of_a_coco_file(tmp_path, kind):
    ann_file = WRITERS[kind](tmp_path)
    dataset = DATASETS.build(settings(kind, ann_file))
    (split,) = find_dataset(ann_file.partition('#')[0]).splits.values()
    coco = as_coco(tmp_path, split)
    same = DATASETS.build(coco)
    assert contents(dataset) == contents(same)
    assert sum(len(info['instances']) for info in contents(dataset)) >= 3
    expected = evaluate(same, coco['ann_file'])
    np.testing.assert_equal(evaluate(dataset, ann_file), expected)
    np.testing.assert_equal(evaluate(dataset, None), expected)
    assert 0 < expected['coco/bbox_mAP'] < 1


def test_difficult_objects_are_ignored_and_told(tmp_path):
    dataset = DATASETS.build(settings('RFDETRVocDataset', write_voc(tmp_path)))
    flags = [
        [x['ignore_flag'] for x in info['instances']] for info in contents(dataset)
    ]
    assert flags == [[0, 0], [0, 1]]
    assert dataset.findings.counts == {Finding.IGNORED: 1}
    assert 'b.xml object 2' in dataset.findings.table()


def damaged_yolo(folder):
    lines = [
        '0 0.5 0.5 0.5 0.25',
        '0 0.5 0.5',
        '7 0.5 0.5 0.5 0.5',
        '0 0.9 0.5 0.5 0.5',
        '1 0.5 0.5 0 0.5',
        '0 40 30 10 10',
    ]
    path = yolo(folder, ['\r\n'.join(lines), ''])
    write(folder / 'labels' / 'train' / 'gone.txt', '0 0.5 0.5 0.5 0.5')
    return f'{path}#train'


def damaged_voc(folder):
    boxes = (50, 10, 90, 30), (9, 9, 5, 5), (70, 50, 90, 60)
    broken = '<object><name>cat</name></object>', OBJECT.format('', 0, 1, 2, 9, 9)
    wrong = [('cat', 0, box) for box in boxes]
    voc(folder, a=xml(CAT, *broken, *wrong), b='<annotation>')
    write(folder / 'Annotations' / 'c.xml', xml(CAT, name='c.png', size=None))
    return str(folder)


def damaged_csv(folder):
    draw(folder)
    rows = [
        'a.png,cat,5,6,15,16',
        'a.png,cat,5,6,x,16',
        'a.png,,5,6,15,16',
        'a.png,cat,50,10,90,30',
        'a.png,cat,9,9,5,5',
        'gone.png,cat,1,2,3,4',
        ',cat,1,2,3,4',
    ]
    write(folder / 'boxes.csv', f'\ufeff{HEADER}' + '\r\n'.join(rows))
    return str(folder / 'boxes.csv')


@pytest.mark.parametrize(
    ('kind', 'damage', 'expected'),
    [
        (
            'RFDETRYoloDataset',
            damaged_yolo,
            dict(
                OBJECT_BROKEN='labels/train/a.txt:2',
                UNKNOWN_CATEGORY='labels/train/a.txt:3',
                BOX_OVER_BORDER='labels/train/a.txt:4',
                BOX_EMPTY='labels/train/a.txt:5',
                BOX_OUTSIDE='labels/train/a.txt:6',
                UNKNOWN_IMAGE='labels/train/gone.txt:1',
                NO_OBJECTS='images/train/b.png',
            ),
        ),
        (
            'RFDETRVocDataset',
            damaged_voc,
            dict(
                OBJECT_BROKEN='Annotations/a.xml object 2',
                UNKNOWN_CATEGORY='Annotations/a.xml object 3',
                BOX_OVER_BORDER='Annotations/a.xml object 4',
                BOX_EMPTY='Annotations/a.xml object 5',
                BOX_OUTSIDE='Annotations/a.xml object 6',
                IMAGE_BROKEN='Annotations/b.xml',
                FILE_MISSING='c.png',
            ),
        ),
        (
            'RFDETRCsvDataset',
            damaged_csv,
            dict(
                OBJECT_BROKEN='boxes.csv:3',
                UNKNOWN_CATEGORY='boxes.csv:4',
                BOX_OVER_BORDER='boxes.csv:5',
                BOX_EMPTY='boxes.csv:6',
                FILE_MISSING='gone.png',
                IMAGE_BROKEN="entry 2: {'id': 3, 'file_name': None",
                UNKNOWN_IMAGE='boxes.csv:8',
            ),
        ),
    ],
)
def test_every_fault_is_in_the_table_with_its_place(tmp_path, kind, damage, expected):
    """Each of them once, also in the tool that checks whole configs."""
    config = settings(kind, damage(tmp_path), metainfo=dict(classes=('cat',)))
    if kind == 'RFDETRYoloDataset':
        config['metainfo'] = dict(classes=CLASSES)
    (checked,) = check_config(Config(dict(train_dataloader=dict(dataset=config))))
    found = checked[1].examples
    assert {finding.name for finding in found} == {*expected}
    for name, place in expected.items():
        assert place in found[Finding[name]][0]
    assert {*checked[1].counts.values()} == {1}
    with pytest.raises(BadDataError, match=re.escape(expected['OBJECT_BROKEN'])):
        DATASETS.build(dict(config, bad_data='error'))


@pytest.mark.parametrize(
    ('changes', 'error', 'said'),
    [
        (dict(data_prefix=dict(img='train2017/')), SettingError, "img=''.*train2017"),
        (
            dict(type='RFDETRVocDataset'),
            SettingError,
            'reads ImageSets.*data.yaml#train',
        ),
        (dict(backend_args=dict(backend='local')), SettingError, '^[^(]*backend_args'),
        (dict(ann_file='data.yaml'), BadDataError, 'several parts.*data.yaml#train$'),
        (dict(ann_file='other.yaml#train'), BadDataError, 'other.yaml does not exist'),
        (dict(ann_file='data.yaml#val'), BadDataError, 'no entry val'),
        (dict(metainfo=dict(classes=('horse',))), BadDataError, "lack .'horse'"),
    ],
)
def test_settings_that_do_not_fit_are_a_sentence(tmp_path, changes, error, said):
    write_yolo(tmp_path)
    config = settings('RFDETRYoloDataset', 'data.yaml#train', data_root=str(tmp_path))
    assert len(DATASETS.build(config)) == 2
    with pytest.raises(error, match=said):
        DATASETS.build(config | changes)


def test_polygons_are_loaded_as_masks(tmp_path):
    """A box has none and is left out of training with masks, as in COCO files."""
    lines = '0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n1 0.5 0.5 0.5 0.5', ''
    steps = [
        dict(type='RFDETRLoadImage'),
        dict(type='RFDETRLoadAnnotations', with_bbox=True, with_mask=True),
    ]
    path = f'{yolo(tmp_path, lines)}#train'
    dataset = DATASETS.build(settings('RFDETRYoloDataset', path, pipeline=steps))
    masks = dataset[0]['gt_masks'].to_ndarray()
    assert masks[0].sum() == 30 * 20 and masks[0, 10:30, 15:45].all()
    assert dataset[0]['gt_ignore_flags'].tolist() == [False, True]


@pytest.mark.long
def test_a_run_trains_and_evaluates_on_it(tmp_path):
    """With the file in the evaluator, and then without one: the same digits."""
    lines = '0 0.5 0.5 0.5 0.25\n1 0.2 0.2 0.3 0.3', '1 0.4 0.5 0.2 0.25'
    path = yolo(tmp_path, lines, more='val: images/train\n')
    cfg = factory.project_config(tmp_path, tmp_path / 'work')
    cfg.model.bbox_head.num_classes = len(CLASSES)
    for split, loader in (('train', 'train'), ('val', 'val'), ('val', 'test')):
        cfg[f'{loader}_dataloader'].dataset.update(
            settings('RFDETRYoloDataset', f'{path}#{split}'),
            pipeline=cfg[f'{loader}_dataloader'].dataset.pipeline,
        )
        pack = cfg[f'{loader}_dataloader'].dataset.pipeline[-1]
        pack.meta_keys = (*pack.meta_keys, 'instances')
    cfg.val_evaluator.ann_file = f'{path}#val'
    cfg.test_evaluator.ann_file = None
    cfg.custom_hooks = [dict(type='RFDETRBadDataHook')]
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.val_loop.run() == runner.test()


@needs_data
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_xml_gives_the_digits_of_the_coco_file(split):
    """Blood cells: the XML counts from 0, as the COCO file does."""
    names = dict(metainfo=dict(classes=('RBC', 'WBC', 'Platelets')), check_images=False)
    lists = DATA / 'bccd' / 'voc' / 'ImageSets' / 'Main'
    path, ann_file = DATA / 'bccd', str(lists / f'{split}.txt')
    dataset = DATASETS.build(settings('RFDETRVocDataset', ann_file, **names))
    coco = str(path / 'annotations' / f'{split}.json')
    config = settings('RFDETRCocoDataset', coco, **names)
    same = DATASETS.build(config | dict(data_prefix=dict(img=str(path / 'images'))))
    assert objects(dataset) == objects(same)
    np.testing.assert_equal(evaluate(dataset, ann_file), evaluate(same, coco))


@needs_data
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_labels_give_the_digits_of_the_coco_file(tmp_path, split):
    """Images of COCO: the labels have six digits of a fraction, 0.0005 pixels or less.

    Rounded to the digits of the COCO file both are equal, and get the same detections.
    """
    folder = DATA / 'coco128'
    (tmp_path / 'images').symlink_to(folder / 'images')
    (tmp_path / 'labels').symlink_to(folder / 'yolo_labels')
    write(tmp_path / 'data.yaml', (folder / 'yolo_data.yaml').read_text())
    ann_file = f'{tmp_path}/data.yaml#{split}'
    names = dict(metainfo=dict(classes=tuple(find_dataset(tmp_path).classes)))
    dataset = DATASETS.build(settings('RFDETRYoloDataset', ann_file, **names))
    coco = str(folder / 'annotations' / f'instances_{split}2017.json')
    images = str(folder / 'images' / f'{split}2017')
    config = settings('RFDETRCocoDataset', coco, **names)
    same = DATASETS.build(config | dict(data_prefix=dict(img=images)))
    assert objects(dataset, digits=2) == objects(same, digits=2)
    expected = evaluate(same, coco)
    np.testing.assert_equal(evaluate(dataset, ann_file, near=same), expected)
    assert 0 < expected['coco/bbox_mAP'] < 1


@pytest.mark.long
def test_polygons_train_and_are_evaluated(tmp_path):
    """A segmentation model, on labels that a COCO file was written as."""
    (tmp_path / 'images' / 'train').mkdir(parents=True)
    project.write_pictures(tmp_path / 'images' / 'train')
    coco = tmp_path / 'images' / 'train' / 'annotations.json'
    document = json.loads(coco.read_text())
    for annotation in document['annotations']:
        if isinstance(annotation['segmentation'], dict):  # which YOLO has not
            x, y, width, height = annotation['bbox']
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotation['segmentation'] = [corners]
    write_labels(document, tmp_path, 'train', project.CLASSES)
    write_settings(tmp_path, project.CLASSES, ['train'])
    cfg = project.shrunk_config(tmp_path)
    ann_file = f'{tmp_path}/data.yaml#train'
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.type, dataset.ann_file = 'RFDETRYoloDataset', ann_file
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = ann_file
    runner = Runner.from_cfg(cfg)
    runner.train()
    (losses, _) = runner.message_hub.log_scalars['train/loss_mask'].data
    assert np.isfinite(losses).all() and (losses > 0).all()
    metrics = runner.val_loop.run()
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= {*metrics}
