"""The metric: values, names and output of MMDetection's."""

import json
import multiprocessing

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import distributed

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.evaluation.predictions import KINDS
from tests.factory import ANIMALS, build, document, write
from tests.fixtures import DATA, needs_data
from tests.test_evaluation import random_sets


def evaluate(folder, predictions, **changes):
    """Evaluate {image id: (boxes, labels, scores)}."""
    metric = METRICS.build(
        dict(
            dict(
                type='RFDETRCocoMetric',
                ann_file=str(folder / 'annotations.json'),
                metric='bbox',
            ),
            **changes,
        )
    )
    metric.dataset_meta = dict(classes=ANIMALS)
    samples = [
        dict(
            img_id=image_id,
            ori_shape=(60, 60),
            pred_instances=dict(
                bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                labels=torch.tensor(labels),
                scores=torch.tensor(scores),
            ),
        )
        for image_id, (boxes, labels, scores) in predictions.items()
    ]
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def perfect(data):
    """Predictions that are the ground truth, with a miss for good measure."""
    predictions = {image['id']: ([], [], []) for image in data['images']}
    for number, annotation in enumerate(data['annotations']):
        x, y, width, height = annotation['bbox']
        boxes, labels, scores = predictions[annotation['image_id']]
        boxes.append([x, y, x + width, y + height])
        labels.append([17, 90].index(annotation['category_id']))
        scores.append(0.9 - 0.1 * number)
    predictions[70][0][1] = [0, 0, 3, 3]
    return predictions


def test_sound_files_give_what_mmdet_gives(tmp_path):
    data = document()
    ours = evaluate(write(tmp_path), perfect(data))
    theirs = evaluate(tmp_path, perfect(data), type='CocoMetric')
    assert random_sets.rounded(ours) == theirs
    assert 0.5 < ours['coco/bbox_mAP'] < 1


def test_images_that_were_left_out_are_no_misses(tmp_path):
    data = document()
    data['images'].append(dict(id=99, file_name='no.jpg', height=9, width=9))
    lost = dict(data['annotations'][0], id=98, image_id=99, bbox=[1, 1, 5, 5])
    data['annotations'].append(lost)
    write(tmp_path, data)
    predictions = perfect(document())
    with_it = evaluate(tmp_path, {**predictions, 99: ([], [], [])})
    without = evaluate(tmp_path, predictions)
    assert with_it['coco/bbox_mAP'] < without['coco/bbox_mAP']


def test_crowds_are_ignored(tmp_path):
    data = document()
    crowd = dict(data['annotations'][0], id=98, iscrowd=1, bbox=[30, 20, 30, 20])
    data['annotations'].append(crowd)
    write(tmp_path, data)
    predictions = perfect(document())
    expected = evaluate(write(tmp_path / 'without'), predictions)
    boxes, labels, scores = predictions[70]
    boxes.append([32, 22, 40, 30])
    labels.append(0)
    scores.append(0.95)
    found = evaluate(tmp_path, predictions)
    assert found['coco/bbox_mAP'] == expected['coco/bbox_mAP']
    assert np.isfinite(found['coco/bbox_mAP'])


@pytest.mark.parametrize('engine', ['pycocotools', 'auto'])
def test_objects_to_ignore_are_neither_missed_nor_false(tmp_path, engine):
    """As in training, which leaves them out."""
    data = document()
    ignored = data['annotations'][-1]
    ignored['ignore'] = 1
    write(tmp_path, data)
    sound = perfect(data)
    sound[70][0][1] = [0, 0, 60, 40]
    without = {**sound, ignored['image_id']: ([], [], [])}
    for predictions in (sound, without):
        found = evaluate(tmp_path, predictions, engine=engine)
        assert found['coco/bbox_mAP'] == 1
    ignored['ignore'] = 0
    write(tmp_path, data)
    assert evaluate(tmp_path, without, engine=engine)['coco/bbox_mAP'] < 1


def test_objects_to_ignore_are_the_same_without_a_file(tmp_path):
    data = document()
    data['annotations'][-1]['ignore'] = 1
    dataset = build(write(tmp_path, data), pipeline=[])
    metric = METRICS.build(dict(type='RFDETRCocoMetric'))
    metric.dataset_meta = dataset.metainfo
    sound = perfect(data)
    sound[70][0][1] = [0, 0, 60, 40]
    for info in map(dataset.get_data_info, range(len(dataset))):
        boxes, labels, scores = map(torch.tensor, sound[info['img_id']])
        found = dict(bboxes=boxes.float(), labels=labels, scores=scores)
        sample = dict(info, ori_shape=(40, 60), pred_instances=found)
        metric.process({}, [sample])
    assert metric.evaluate(len(dataset))['coco/bbox_mAP'] == 1


@pytest.mark.parametrize(
    'setting, message',
    [
        (dict(sort_categories=True), 'has no sort_categories: leave it out'),
        (dict(use_mp_eval=True), 'has no use_mp_eval: leave it out'),
        (dict(metric='proposal_fast'), "'proposal_fast' is none of"),
        (dict(metric_items=['mAP', 'mAP_60']), "'mAP_60' is none of"),
        (dict(metric_items=['AR@100'], proposal_nums=(1, 10)), "'AR@100' is none of"),
        (dict(proposal_nums=(0, 10)), 'proposal_nums=0 must be a whole number'),
        (dict(proposal_nums=()), 'proposal_nums=.* must be a whole number'),
        (dict(proposal_nums='300'), 'proposal_nums=.* must be a whole number'),
        (dict(proposal_nums=(1, None)), 'proposal_nums=.* must be a whole number'),
        (dict(engine='fast'), "'auto' or one of"),
    ],
)
def test_settings_that_it_does_not_have_are_refused_at_once(tmp_path, setting, message):
    with pytest.raises(SettingError, match=message):
        evaluate(write(tmp_path), {}, **setting)


# Not those of metrics of their own, as of points.
OWN = {name: kind for name, kind in KINDS.items() if kind.iou_type in ('bbox', 'segm')}
ALL = [*OWN]
SORTED = dict(category_ids=(1, 2, 5, 6, 9))


def both(monkeypatch, found, **settings):
    """Results of mmdet's metric and of ours."""
    return tuple(
        random_sets.evaluate(monkeypatch, found, type=kind, **settings)[0]
        for kind in ('CocoMetric', 'RFDETRCocoMetric')
    )


def test_classes_one_by_one(tmp_path, monkeypatch):
    path, found = random_sets.make_set(tmp_path, **SORTED)
    theirs, ours = both(
        monkeypatch, found, ann_file=str(path), metric=ALL, classwise=True
    )
    absent = 'coco/elk_precision'
    assert np.isnan(theirs.pop(absent)) and np.isnan(ours.pop(absent))
    assert random_sets.rounded(ours) == theirs
    assert ours['coco/ant_precision'] != ours['coco/bee_precision']


def test_classes_keep_their_names_whatever_the_order_of_ids(tmp_path, monkeypatch):
    """mmdet mixes them up if the ids of the categories do not ascend."""
    results = []
    for ids in (SORTED['category_ids'], random_sets.CATEGORY_IDS):
        path, found = random_sets.make_set(tmp_path, category_ids=ids)
        results.append(
            random_sets.evaluate(
                monkeypatch,
                found,
                type='RFDETRCocoMetric',
                ann_file=str(path),
                classwise=True,
            )[0]
        )
    assert results[0] == pytest.approx(results[1], nan_ok=True)


def test_fewer_thresholds_leave_gaps(tmp_path, monkeypatch):
    path, found = random_sets.make_set(tmp_path)
    settings = dict(ann_file=str(path), classwise=True, iou_thrs=[0.3, 0.5])
    result, _ = random_sets.evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', **settings
    )
    assert result['coco/bbox_mAP_75'] == -1
    assert 0 < result['coco/ant_precision'] < 1


def test_files_are_written_where_they_are_asked_for(tmp_path, monkeypatch):
    path, found = random_sets.make_set(tmp_path)
    written = []
    for kind in ('CocoMetric', 'RFDETRCocoMetric'):
        prefix = tmp_path / kind / 'results'
        prefix.parent.mkdir()
        settings = dict(ann_file=str(path), metric=ALL, outfile_prefix=str(prefix))
        evaluated, _ = random_sets.evaluate(monkeypatch, found, type=kind, **settings)
        formatted, _ = random_sets.evaluate(
            monkeypatch, found, type=kind, format_only=True, **settings
        )
        assert formatted == {}
        assert evaluated['coco/bbox_mAP'] > 0
        written.append(
            {
                file.name: json.loads(file.read_text())
                for file in prefix.parent.iterdir()
            }
        )
    assert written[0] == written[1]
    assert set(written[1]) == {f'results.{kind.iou_type}.json' for kind in OWN.values()}


def test_no_file_is_written_otherwise(tmp_path, monkeypatch):
    path, found = random_sets.make_set(tmp_path)
    monkeypatch.setattr(
        'mmdet.evaluation.metrics.coco_metric.dump', lambda *_: pytest.fail('a file')
    )
    random_sets.evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', ann_file=str(path)
    )


def test_without_any_detection_there_is_no_result(tmp_path, monkeypatch):
    path, found = random_sets.make_set(tmp_path)
    nothing = {
        key: (boxes[:0], labels[:0], scores[:0])
        for key, (boxes, labels, scores) in found.items()
    }
    theirs, ours = both(monkeypatch, nothing, ann_file=str(path))
    assert ours == theirs == {}


def test_ground_truth_of_the_samples(tmp_path, monkeypatch):
    """Without a file, as data sets in other formats are evaluated."""
    path, found = random_sets.make_set(tmp_path, **SORTED)
    document = json.loads(path.read_text())
    results = []
    for kind in ('CocoMetric', 'RFDETRCocoMetric'):
        metric = METRICS.build(dict(type=kind))
        metric.dataset_meta = dict(classes=random_sets.CLASSES)
        for sample in random_sets.samples(found):
            sample['instances'] = [
                dict(
                    bbox=[x, y, x + width, y + height],
                    bbox_label=SORTED['category_ids'].index(annotation['category_id']),
                    ignore_flag=annotation['iscrowd'],
                )
                for annotation in document['annotations']
                if annotation['image_id'] == sample['img_id']
                for x, y, width, height in [annotation['bbox']]
            ]
            metric.process({}, [sample])
        results.append(metric.evaluate(len(found)))
    assert results[0] == random_sets.rounded(results[1])
    assert results[1]['coco/bbox_mAP'] > 0


def test_objects_without_an_area_have_that_of_their_box(tmp_path):
    data = document()
    for annotation in data['annotations']:
        annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
    expected = evaluate(write(tmp_path / 'whole', data), perfect(data))
    for annotation in data['annotations']:
        del annotation['area'], annotation['iscrowd']
    assert evaluate(write(tmp_path, data), perfect(data)) == expected


@needs_data
@pytest.mark.parametrize(
    'name', ['bccd/annotations/val', 'coco128/annotations/instances_val2017']
)
def test_real_data(monkeypatch, name):
    """Ground truth of real images, drawn in and out."""
    path = DATA / f'{name}.json'
    document = json.loads(path.read_text())
    names = [category['name'] for category in document['categories']]
    labels = {c['id']: n for n, c in enumerate(document['categories'])}
    rng = np.random.default_rng(0)
    found = {}
    for image in document['images']:
        own = [a for a in document['annotations'] if a['image_id'] == image['id']]
        boxes = np.array([a['bbox'] for a in own], dtype=float).reshape(-1, 4)
        boxes = np.repeat(boxes, 3, axis=0)
        boxes[:, 2:] *= rng.uniform(0.7, 1.4, (len(boxes), 2))
        classes = np.repeat([labels[a['category_id']] for a in own], 3).astype(int)
        found[image['id']] = boxes, classes, rng.random(len(boxes)).round(2)
    monkeypatch.setattr(random_sets, 'CLASSES', names)
    settings = dict(ann_file=str(path), classwise=True)
    theirs, expected = random_sets.evaluate(
        monkeypatch, found, type='CocoMetric', **settings
    )
    ours, stats = random_sets.evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', **settings
    )
    assert random_sets.rounded(ours) == pytest.approx(theirs, abs=1e-12, nan_ok=True)
    np.testing.assert_allclose(stats, expected, rtol=0, atol=1e-12)


def evaluate_in_parts(rank, path, found, store, answers):
    """One of two processes, with every other image."""
    distributed.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=2
    )
    # The threads of the other engine do not survive the fork of this test.
    metric = METRICS.build(
        dict(type='RFDETRCocoMetric', ann_file=str(path), engine='pycocotools')
    )
    metric.dataset_meta = dict(classes=random_sets.CLASSES)
    metric.process({}, list(random_sets.samples(found))[rank::2])
    answers.put(metric.evaluate(len(found)))
    distributed.barrier()
    distributed.destroy_process_group()


def test_two_processes_evaluate_all_images(tmp_path, monkeypatch):
    path, found = random_sets.make_set(tmp_path, images=15)
    expected, _ = random_sets.evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', ann_file=str(path)
    )
    context = multiprocessing.get_context('fork')
    answers = context.Queue()
    processes = [
        context.Process(
            target=evaluate_in_parts,
            args=(rank, path, found, tmp_path / 'store', answers),
            daemon=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert found == [expected, expected]


@pytest.mark.parametrize('name', ['rfdetr_coco', 'rfdetr_tiny_bccd'])
def test_shipped_configs_use_it_and_take_another(tmp_path, name):
    base = Config.fromfile(f'configs/{name}.py')
    assert base.val_evaluator.type == base.test_evaluator.type == 'RFDETRCocoMetric'
    path = tmp_path / 'mine.py'
    path.write_text(
        f"_base_ = __import__('mmdet_rfdetr').config('{name}.py')\n"
        'val_evaluator = dict(\n'
        "    type='CocoMetric', _delete_=True, ann_file='annotations.json')\n"
    )
    write(tmp_path)
    evaluator = Config.fromfile(path).val_evaluator
    evaluator.ann_file = str(tmp_path / evaluator.ann_file)
    assert type(METRICS.build(evaluator)).__name__ == 'CocoMetric'


def test_metrics_keep_what_three_digits_lose(tmp_path, monkeypatch):
    path, found = random_sets.make_set(tmp_path)
    settings = dict(type='RFDETRCocoMetric', ann_file=str(path), classwise=True)
    result, (stats,) = random_sets.evaluate(monkeypatch, found, **settings)
    assert result['coco/bbox_mAP'] == pytest.approx(stats[0], abs=1e-12)
    for name in ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/ant_precision'):
        assert result[name] != pytest.approx(round(result[name], 3), abs=1e-6)


@pytest.mark.parametrize('what', ['scores', 'boxes'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_detections_that_are_not_finite_give_no_number(
    tmp_path, monkeypatch, what, value
):
    path, found = random_sets.make_set(tmp_path)
    image, (boxes, labels, scores) = next(
        (key, parts) for key, parts in found.items() if len(parts[1])
    )
    boxes, scores = boxes.copy(), scores.copy()
    dict(scores=scores, boxes=boxes[:, 2])[what][0] = value
    found[image] = boxes, labels, scores
    said = []
    monkeypatch.setattr(MMLogger, 'error', lambda _, text: said.append(text))
    settings = dict(type='RFDETRCocoMetric', ann_file=str(path), classwise=True)
    result, _ = random_sets.evaluate(monkeypatch, found, **settings)
    assert 'coco/bbox_mAP' in result and 'coco/ant_precision' in result
    assert np.isnan(list(result.values())).all()
    assert f'not finite (NaN or infinity) for 1 of 14 images, for example {image}' in (
        ''.join(said)
    )


@pytest.mark.parametrize(
    'settings',
    [
        {},
        dict(metric=ALL, classwise=True, prefix='mine'),
        dict(metric='proposal', proposal_nums=(1, 20)),
        dict(metric_items=['mAP_s', 'AR@300'], metric=['bbox']),
    ],
)
def test_the_names_of_metrics_are_known_before_their_values(
    tmp_path, monkeypatch, settings
):
    path, found = random_sets.make_set(tmp_path)
    result, _ = random_sets.evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', ann_file=str(path), **settings
    )
    metric = METRICS.build(
        dict(type='RFDETRCocoMetric', ann_file=str(path), **settings)
    )
    metric.dataset_meta = dict(classes=random_sets.CLASSES)
    assert metric.metric_names() == list(result)
    # save_best='auto' takes the first.
    assert not any(name.endswith('_precision') for name in list(result)[:2])
