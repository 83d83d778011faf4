"""The metric on annotation files as they really are."""

import pytest
from mmdet.registry import METRICS

from mmdet_rfdetr.errors import BadDataError, ExplainedError
from mmdet_rfdetr.faults import coco_metric
from tests.factory import ANIMALS, document, write
from tests.test_evaluation.test_coco_metric import evaluate, perfect
from tests.test_segmentation import test_mask_precision as masks


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


@pytest.mark.parametrize('mark', ['1', True, 'true'])
def test_marks_of_objects_to_ignore_are_read_as_they_are_meant(tmp_path, mark):
    data = document()
    ignored = data['annotations'][-1]
    sound = perfect(data)
    sound[70][0][1] = [0, 0, 60, 40]
    sound[ignored['image_id']] = [], [], []
    ignored['ignore'] = mark
    assert evaluate(write(tmp_path, data), sound)['coco/bbox_mAP'] == 1
    ignored['ignore'] = '0'
    assert evaluate(write(tmp_path, data), sound)['coco/bbox_mAP'] < 1


def test_run_lengths_of_another_size_than_the_image_are_refused(tmp_path):
    runs = dict(size=[40, 60], counts=[1000, 100, 1300])
    size = dict(height=40, width=60)
    with pytest.raises(
        BadDataError, match=r'image 1, which .* \[40, 60\] in .*\[60, 80\]'
    ):
        masks.evaluate(tmp_path, 'auto', size, runs)


def remarks(monkeypatch, *calls):
    said = []
    monkeypatch.setattr(coco_metric, 'print_log', lambda text, **_: said.append(text))
    for call in calls:
        call()
    return said


def make_metric(path, classes=ANIMALS, **settings):
    metric = METRICS.build(
        dict(type='RFDETRCocoMetric', ann_file=str(path), **settings)
    )
    metric.dataset_meta = dict(classes=classes)
    return metric


@pytest.mark.parametrize(
    'change',
    [
        lambda data: data['annotations'].clear(),
        lambda data: [a.update(iscrowd=1) for a in data['annotations']],
        lambda data: [a.update(ignore='1') for a in data['annotations']],
        lambda data: [a.update(bbox=[1, 1, 0, 5]) for a in data['annotations']],
        lambda data: [a.update(category_id=4711) for a in data['annotations']],
    ],
    ids=('none', 'crowds', 'ignored', 'no area', 'other categories'),
)
def test_a_set_without_objects_is_said_before_anything_is_evaluated(
    tmp_path, monkeypatch, change
):
    data = document()
    write(tmp_path / 'sound', data)
    change(data)
    write(tmp_path, data)
    (line,) = remarks(
        monkeypatch,
        lambda: make_metric(tmp_path / 'sound' / 'annotations.json'),
        lambda: make_metric(tmp_path / 'annotations.json'),
    )
    assert 'has no object of the classes' in line
    assert 'no checkpoint will be the best' in line


def test_more_objects_than_count_are_said_with_the_setting(tmp_path, monkeypatch):
    data = document()
    one = data['annotations'][0]
    data['annotations'] = [
        dict(one, id=n, bbox=[n % 12 * 5, n // 12 * 4, 4, 3]) for n in range(130)
    ]
    path = write(tmp_path, data) / 'annotations.json'
    (line,) = remarks(monkeypatch, lambda: make_metric(path))
    assert 'up to 130 objects of a class in an image, and mAP counts 100' in line
    assert 'proposal_nums=(1, 10, 130)' in line
    advised = dict(proposal_nums=(1, 10, 130))
    assert remarks(monkeypatch, lambda: make_metric(path, **advised)) == []
    found = {image['id']: ([], [], []) for image in data['images']}
    boxes, labels, scores = found[one['image_id']]
    for annotation in data['annotations']:
        x, y, width, height = annotation['bbox']
        boxes.append([x, y, x + width, y + height])
        labels.append(0)
        scores.append(0.5)
    assert evaluate(tmp_path, found)['coco/bbox_mAP'] < 0.8
    assert evaluate(tmp_path, found, **advised)['coco/bbox_mAP'] == 1


def test_labels_beyond_the_classes_of_the_data_are_explained(tmp_path):
    with pytest.raises(ExplainedError, match='class 65, and the data has only 2'):
        evaluate(write(tmp_path), {70: ([[1, 2, 3, 4]], [65], [0.5])})
