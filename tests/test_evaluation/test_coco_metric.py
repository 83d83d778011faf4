"""The metric on annotation files as they really are."""

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS

from tests.test_data.coco_files import CLASSES, document, write


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
    metric.dataset_meta = dict(classes=CLASSES)
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
    assert ours == theirs
    assert 0.5 < ours['coco/bbox_mAP'] < 1


def test_faults_do_not_change_the_result(tmp_path):
    data = document()
    expected = evaluate(write(tmp_path / 'sound'), perfect(data))
    sound = dict(data['annotations'][1])
    for annotation in data['annotations']:
        del annotation['iscrowd']
        annotation['bbox'] = [str(value) for value in annotation['bbox']]
        annotation['id'] = 0
    # mmdet has a use for the area; completed, it is that of the box.
    for annotation in data['annotations'][::2]:
        del annotation['area']
    data['annotations'] += [
        dict(sound, image_id=4711),
        dict(sound, category_id=4711),
        dict(sound, bbox=[1, 2, float('nan'), 3]),
        dict(sound, bbox=None),
    ]
    predictions = perfect(document())
    found = evaluate(write(tmp_path / 'faulty', data), predictions)
    for name in ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75'):
        assert found[name] == pytest.approx(expected[name]), name


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


def test_sorted_categories_are_refused(tmp_path):
    with pytest.raises(TypeError, match='leave out sort_categories'):
        evaluate(write(tmp_path), {}, sort_categories=True)
