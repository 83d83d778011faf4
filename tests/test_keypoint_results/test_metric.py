"""COCO's numbers of keypoints, equal on every engine and to the official ones."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import mmdet_rfdetr
from mmdet_rfdetr.errors import BadDataError, SettingError
from mmdet_rfdetr.evaluation.engines import ENGINES
from mmdet_rfdetr.keypoint_results.metric import NAMES, count_points, oks_sigmas
from tests.fixtures import FIXTURES, needs_fixtures


def predictions(document, names):
    """Samples of the detections of an official file, for our metric."""
    samples = []
    labels = {key: label for label, key in enumerate(names)}
    most = max(len(c['keypoints']) for c in document['categories'])
    for image in document['images']:
        found = [
            x
            for x in document['detections']
            if x['image_id'] == image['id'] and x['category_id'] in labels
        ]
        points = np.zeros((len(found), most, 3), np.float64)
        for row, each in zip(points, found, strict=True):
            row[: len(each['keypoints']) // 3] = np.reshape(each['keypoints'], (-1, 3))
        points = torch.from_numpy(points)
        made = dict(
            bboxes=torch.ones(len(found), 4),
            labels=torch.tensor([labels[x['category_id']] for x in found], dtype=int),
            scores=torch.tensor([x['score'] for x in found], dtype=float),
            keypoints=points[..., :2],
            keypoint_scores=points[..., 2],
        )
        sample = dict(img_id=image['id'], ori_shape=(image['height'], image['width']))
        samples.append(dict(sample, pred_instances=made, img_path=image['file_name']))
    return samples


def evaluate(document, path, names, **settings):
    classes = [c['name'] for c in document['categories'] if c['id'] in names]
    metric = METRICS.build(
        dict(
            type='RFDETRCocoKeypointMetric',
            ann_file=str(path),
            metric='keypoints',
            **settings,
        )
    )
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, predictions(document, names))
    return [*metric.evaluate(len(document['images'])).values()]


@needs_fixtures
@pytest.mark.parametrize('engine', list(ENGINES))
def test_metric_is_the_official_one(tmp_path, engine):
    text = (FIXTURES / 'keypoint/small.json').read_text()
    document = json.loads(text)['oks']
    path = tmp_path / 'a.json'
    path.write_text(
        json.dumps({k: document[k] for k in ('images', 'annotations', 'categories')})
    )
    for run in document['runs'].values():
        found = evaluate(
            document, path, run['categories'], sigmas=run['sigmas'], engine=engine
        )
        np.testing.assert_allclose(found, run['stats'], rtol=0, atol=1e-12)


def test_metric_fills_in_what_is_missing_and_ignores_what_is_unseen(tmp_path):
    objects = [
        dict(
            id=1,
            image_id=1,
            category_id=1,
            bbox=[0, 0, 50, 50],
            area=2500,
            iscrowd=0,
            keypoints=[9, 9, 2, 20, 30, 1],
        ),
        dict(
            id=2, image_id=1, category_id=1, bbox=[0, 0, 50, 50], area=2500, iscrowd=0
        ),
    ]
    document = dict(
        images=[dict(id=1, width=64, height=64, file_name='1')],
        categories=[dict(id=1, name='a', keypoints=['x', 'y'])],
        annotations=objects,
        detections=[
            dict(image_id=1, category_id=1, score=0.9, keypoints=[9, 9, 1, 20, 30, 1])
        ],
    )
    path = tmp_path / 'a.json'
    path.write_text(
        json.dumps({k: document[k] for k in ('images', 'annotations', 'categories')})
    )
    found = evaluate(document, path, [1])
    assert found[0] == pytest.approx(1)
    assert found[4] == -1  # no large object
    found = evaluate(document, path, [1], sigmas=[1e-6, 1e-6])
    assert found[0] == pytest.approx(1)
    document['detections'][0]['keypoints'][0] = 40
    assert evaluate(document, path, [1])[0] == pytest.approx(0.1)  # OKS is 0.5
    document['annotations'][0]['num_keypoints'] = None  # is counted, too
    path.write_text(json.dumps(document))
    assert evaluate(document, path, [1])[0] == pytest.approx(0.1)
    for wrong in ([1.0, 0.0], [1.0, float('nan')], [[1.0, 1.0]]):
        with pytest.raises(SettingError, match='above 0'):
            oks_sigmas(wrong, 2)
    for wrong in ([0.1], [0.1] * 17, 'ab', 5):
        count = 1 if isinstance(wrong, str | int) else len(wrong)
        with pytest.raises(SettingError, match=f'{count} sigmas .* has 2 points'):
            evaluate(document, path, [1], sigmas=wrong)
    with pytest.raises(SettingError, match='numbers above 0'):
        evaluate(document, path, [1], sigmas=['a', 'b'])


def test_kinds_of_points_count_by_their_classes(tmp_path):
    """Two classes of two points are found, one of three is not: 2 of 3."""
    sizes = {1: 2, 2: 2, 3: 3}
    points = {key: [9.0, 9.0, 2.0] * n for key, n in sizes.items()}
    box = dict(image_id=1, bbox=[0, 0, 50, 50], area=2500, iscrowd=0)
    document = dict(
        images=[dict(id=1, width=64, height=64, file_name='1')],
        categories=[
            dict(id=key, name=f'{key}', keypoints=['x', 'y', 'z'][:n])
            for key, n in sizes.items()
        ],
        annotations=[
            dict(box, id=key, category_id=key, keypoints=points[key]) for key in sizes
        ],
        detections=[
            dict(image_id=1, category_id=key, score=0.9, keypoints=points[key])
            for key in (1, 2)
        ],
    )
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(document))
    found = dict(zip(NAMES, evaluate(document, path, [1, 2, 3]), strict=True))
    assert found['keypoints_mAP'] == pytest.approx(2 / 3)
    assert found['keypoints_AR_m'] == pytest.approx(2 / 3)
    assert found['keypoints_mAP_l'] == -1  # no object is large: not a part of a mean


def ranked(path, rank, **settings):
    """Numbers of one object that is found by the detection of a rank, from 1 on."""
    box = dict(image_id=1, category_id=1)
    points = [9.0, 9.0, 2.0, 30.0, 30.0, 2.0]
    true = dict(box, id=1, bbox=[0, 0, 50, 50], area=2500, iscrowd=0, keypoints=points)
    far = [500.0, 500.0, 1.0] * 2
    document = dict(
        images=[dict(id=1, width=64, height=64, file_name='1')],
        categories=[dict(id=1, name='a', keypoints=['x', 'y'])],
        annotations=[true],
        detections=[
            dict(box, score=1 - n / 100, keypoints=points if n == rank else far)
            for n in range(1, 41)
        ],
    )
    path.write_text(json.dumps(document))
    return evaluate(document, path, [1], **settings)


@pytest.mark.parametrize('settings', [{}, dict(proposal_nums=(1, 10, 500))])
@pytest.mark.parametrize('engine', list(ENGINES))
def test_twenty_detections_of_a_class_in_an_image_count(tmp_path, engine, settings):
    """However many of its boxes do."""
    settings = dict(settings, engine=engine)
    path = tmp_path / 'a.json'
    assert ranked(path, 20, **settings)[0] == pytest.approx(1 / 20)
    assert ranked(path, 20, **settings)[5] == 1
    assert ranked(path, 21, **settings)[:6] == [0, 0, 0, 0, -1, 0]


def test_sigmas_are_those_of_the_metric_before_those_of_the_metainfo(tmp_path):
    stated, shown = [0.5, 0.25], []
    metric = METRICS.build(dict(type='RFDETRCocoKeypointMetric', metric='keypoints'))
    for own, known in ((None, None), (None, stated), ([0.1, 0.1], stated)):
        metric.sigmas = own
        metric.dataset_meta = dict(classes=['a'], num_keypoints=[2], sigmas=known)
        metric.process({}, [sample_of(found=[[1.0, 1.0], [5.0, 5.0]])])
        logger = MMLogger.get_current_instance()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(logger, 'info', shown.append)
            metric.evaluate(1)
    lines = [line for line in shown if 'sigmas' in line]
    assert lines == [
        f'keypoints of 2 points, sigmas {each}'
        for each in ([0.05, 0.05], stated, [0.1, 0.1])
    ]


def test_a_model_of_other_points_than_the_data_is_told():
    shown = []
    metric = METRICS.build(dict(type='RFDETRCocoKeypointMetric', metric='keypoints'))
    for count in (1, 3):
        metric.dataset_meta = dict(classes=['a'], num_keypoints=[count])
        metric.process({}, [sample_of(found=[[1.0, 1.0], [5.0, 5.0]])])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MMLogger.get_current_instance(), 'warning', shown.append)
            if count == 1:
                metric.evaluate(1)
            else:
                with pytest.raises(SettingError, match='finds 2 points .*num_keypoi'):
                    metric.evaluate(1)
    (said,) = shown
    assert 'finds 2 points' in said and said.endswith('the first 1 are compared.')


def both_ways(folder, annotations, found, prefix=None):
    """Numbers of a data set with its annotation file, and without one.

    Args:
        folder: for the files.
        annotations: of one image, of the class ``a`` with two points.
        found: scores and points (2, 3) of detections.
        prefix: for the results of the metric that has the file.
    """
    document = dict(
        images=[dict(id=1, width=64, height=64, file_name='1.png')],
        categories=[dict(id=7, name='a', keypoints=['x', 'y'])],
        annotations=[
            dict(dict(id=n, image_id=1, category_id=7, iscrowd=0), **each)
            for n, each in enumerate(annotations, start=1)
        ],
    )
    path = folder / 'a.json'
    path.write_text(json.dumps(document))
    Image.new('RGB', (64, 64)).save(folder / '1.png')
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'instances')
    dataset = DATASETS.build(
        dict(
            type='RFDETRCocoKeypointDataset',
            ann_file=str(path),
            data_prefix=dict(img=str(folder)),
            metainfo=dict(classes=('a',)),
            test_mode=True,
            pipeline=[
                dict(type='RFDETRLoadImage'),
                dict(type='RFDETRLoadKeypoints', with_bbox=True),
                dict(type='RFDETRPackKeypoints', meta_keys=keys),
            ],
        )
    )
    scores, points = (torch.tensor(x) for x in zip(*found, strict=True))
    sample = dataset[0]['data_samples']
    made = InstanceData(
        bboxes=torch.tensor([[5.0, 5.0, 55.0, 55.0]]).expand(len(scores), 4),
        labels=torch.zeros(len(scores), dtype=int),
        scores=scores,
        keypoints=points[..., :2],
        keypoint_scores=points[..., 2],
    )
    sample.pred_instances = made
    numbers = []
    for where in (dict(ann_file=str(path), outfile_prefix=prefix), {}):
        metric = METRICS.build(dict(type='RFDETRCocoKeypointMetric', **where))
        metric.dataset_meta = dataset.metainfo
        metric.process({}, [sample.to_dict()])
        numbers.append(metric.evaluate(1))
    return numbers


WHOLE = dict(bbox=[5, 5, 50, 50], area=1100, keypoints=[10, 10, 2, 40, 40, 1])


@pytest.mark.parametrize(
    'more',
    [
        {},
        dict(keypoints=[10, 10, 2, 70, 40, 1]),  # outside: not learned, but evaluated
        dict(num_keypoints=0),
        dict(keypoints=[10, 10, 2]),
    ],
    ids=str,
)
def test_numbers_without_a_file_are_those_with_it(tmp_path, more):
    """Areas of masks, and points as they were annotated, count."""
    near = [[13.0, 10.0, 1.0], [43.0, 40.0, 1.0]]
    with_file, without = both_ways(tmp_path, [{**WHOLE, **more}], [(0.9, near)])
    assert with_file == without
    if not more:
        assert with_file['coco/keypoints_mAP'] == pytest.approx(0.4)


def test_pycocotools_gives_the_same_numbers_of_the_written_file(tmp_path):
    """Of sizes, too: an area of their boxes would make false detections large."""
    true = [[10.0, 10.0, 1.0], [40.0, 40.0, 1.0]]
    false = [[10.0, 50.0, 1.0], [50.0, 10.0, 1.0]]
    found = [(0.9, true), (0.95, false)]
    prefix = str(tmp_path / 'found')
    ours = both_ways(tmp_path, [WHOLE], found, prefix)[0]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / 'a.json'))
        for each in truth.dataset['annotations']:
            each['num_keypoints'] = 2
        written = truth.loadRes(prefix + '.keypoints.json')
        evaluation = COCOeval(truth, written, 'keypoints')
        evaluation.params.kpt_oks_sigmas = np.full(2, 0.05)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = [ours[f'coco/{name}'] for name in NAMES]
    np.testing.assert_allclose(numbers, evaluation.stats, atol=1e-6)  # of float32
    assert numbers[3] == pytest.approx(0.5)


def test_joined_data_sets_have_the_points_of_each(tmp_path):
    """As mmdet hands over the metainfo of those that are concatenated."""
    metric = METRICS.build(dict(type='RFDETRCocoKeypointMetric', metric='keypoints'))
    found = sample_of(found=[[1.0, 1.0], [5.0, 5.0]])
    one, two = (dict(found, img_id=n) for n in (1, 2))
    two['instances'] = [dict(two['instances'][0], bbox_label=1)]
    first, second = dict(classes=['a']), dict(classes=['a', 'b'], num_keypoints=[2, 2])
    for metas in ([first, second], [dict(first, num_keypoints=[2]), second], second):
        metric.dataset_meta = metas
        metric.process({}, [one, two])  # b is found as a
        assert metric.evaluate(2)['coco/keypoints_mAP'] == pytest.approx(0.5)


def test_counts_of_samples_are_those_of_their_points():
    """Of a data set that says nothing of them; points may be rows of three."""
    metric = METRICS.build(dict(type='RFDETRCocoKeypointMetric', metric='keypoints'))
    sample = sample_of(found=[[1.0, 1.0], [5.0, 5.0]])
    for points in ([1, 1, 2, 5, 5, 2], [[1, 1, 2], [5, 5, 2]]):
        sample['instances'][0]['keypoints'] = points
        metric.dataset_meta = dict(classes=['a'])
        metric.process({}, [sample])
        assert metric.evaluate(1)['coco/keypoints_mAP'] == pytest.approx(1)


def test_counts_come_from_names_or_the_longest_annotation():
    categories = [dict(id=1, name='a', keypoints=['x', 'y']), dict(id=2, name='b')]
    objects = [dict(category_id=2, keypoints=[1] * 9), dict(category_id=2)]
    document = dict(categories=categories, annotations=objects)
    assert count_points(document, ['b', 'a', 'c']) == [3, 2, 0]
    with pytest.raises(BadDataError, match='has keypoints'):
        count_points(document, ['c'])


def sample_of(found):
    """A sample of one object, whose true points are at (1, 1) and (5, 5)."""
    made = dict(
        bboxes=torch.ones(1, 4),
        labels=torch.zeros(1, dtype=int),
        scores=torch.ones(1),
        keypoints=torch.tensor([found]),
        keypoint_scores=torch.ones(1, 2),
    )
    instance = dict(bbox=[0, 0, 9, 9], bbox_label=0, ignore_flag=0)
    instance['keypoints'] = [1, 1, 2, 5, 5, 2]
    sample = dict(img_id=1, ori_shape=(9, 9), img_path='a', pred_instances=made)
    return dict(sample, instances=[instance])


def test_a_point_that_is_no_number_makes_no_metric_a_number(tmp_path):
    metric = METRICS.build(dict(type='RFDETRCocoKeypointMetric', metric='keypoints'))
    assert metric.metric_names() == [f'coco/{name}' for name in NAMES]
    sample = sample_of(found=[[torch.nan] * 2] * 2)
    made = sample['pred_instances']
    metric.dataset_meta = dict(classes=['a'], num_keypoints=[2])
    metric.process({}, [sample])
    assert all(np.isnan([*metric.evaluate(1).values()]))
    made['keypoints'] = torch.tensor([[[1.0, 1.0], [5.0, 5.0]]])
    metric.process({}, [sample])
    assert metric.evaluate(1)['coco/keypoints_mAP'] == pytest.approx(1)
    del made['keypoints']
    with pytest.raises(SettingError, match='keypoint_head'):
        metric.process({}, [sample])


def test_pose_configs_choose_checkpoints_by_it():
    cfg = Config.fromfile(mmdet_rfdetr.config('rfdetr-pose_nano_coco.py'))
    assert cfg.val_evaluator.type == 'RFDETRCocoKeypointMetric'
    assert cfg.default_hooks.checkpoint.save_best == 'coco/keypoints_mAP'
    assert 'person_keypoints' in cfg.val_evaluator.ann_file
