"""Masks of COCO annotations as they really are."""

import json

import cv2
import numpy as np
import pycocotools.mask as rle
import pytest
import torch
from mmdet.registry import DATASETS, METRICS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_rfdetr import config
from mmdet_rfdetr.errors import BadDataError
from mmdet_rfdetr.segmentation.mask_results import EncodedMasks

HEIGHT, WIDTH = 40, 60
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
BAR = [40, 5, 50, 5, 50, 35, 40, 35]


def runs(compressed):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    mask[10:30, 10:30] = 1
    code = rle.encode(mask)
    if compressed:
        return dict(size=code['size'], counts=code['counts'].decode())
    return dict(size=[HEIGHT, WIDTH], counts=[410, *[20, 20] * 19, 20, 1210])


def write(folder, *segmentations, **common):
    """One image; every object has the same box, and a class of its own."""
    cv2.imwrite(str(folder / '0.png'), np.full((HEIGHT, WIDTH, 3), 99, np.uint8))
    annotations = []
    for index, segmentation in enumerate(segmentations):
        annotation = dict(
            id=index + 1,
            image_id=7,
            category_id=index + 1,
            bbox=[10, 10, 20, 20],
            area=400,
            iscrowd=0,
            segmentation=segmentation,
        )
        annotation.update(common)
        if segmentation is None:
            del annotation['segmentation']
        annotations.append(annotation)
    path = folder / 'annotations.json'
    path.write_text(
        json.dumps(
            dict(
                images=[dict(id=7, file_name='0.png', height=HEIGHT, width=WIDTH)],
                annotations=annotations,
                categories=[
                    dict(id=i + 1, name=str(i)) for i in range(len(segmentations))
                ],
            )
        )
    )
    return str(path)


def load(folder, *segmentations, **common):
    """What the shipped test pipeline, which keeps the masks' size, gives."""
    path = write(folder, *segmentations, **common)
    cfg = Config.fromfile(config('rfdetr-seg_nano_coco.py'))
    init_default_scope('mmdet')
    names = tuple(str(i) for i in range(len(segmentations)))
    dataset = DATASETS.build(
        dict(
            cfg.train_dataloader.dataset,
            data_root=str(folder),
            ann_file=path,
            data_prefix=dict(img=''),
            metainfo=dict(classes=names),
            pipeline=cfg.test_pipeline,
        )
    )
    return dataset[0]['data_samples']


@pytest.mark.parametrize(
    'segmentation',
    [[SQUARE], runs(compressed=True), runs(compressed=False)],
    ids=['polygon', 'compressed', 'uncompressed'],
)
def test_polygons_and_run_lengths_are_the_same_mask(tmp_path, segmentation):
    masks = load(tmp_path, segmentation).gt_instances.masks.masks
    expected = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    expected[0, 10:30, 10:30] = 1
    np.testing.assert_array_equal(masks, expected)


def test_parts_are_joined(tmp_path):
    masks = load(tmp_path, [SQUARE, BAR, [1, 2, 3, 4]]).gt_instances.masks.masks
    assert masks.sum() == 20 * 20 + 10 * 30
    assert masks[0, 20, 45] == masks[0, 20, 20] == 1


def test_a_polygon_is_cut_at_the_border(tmp_path):
    outside = [-20, -20, 5, -20, 5, 300, -20, 300]
    masks = load(tmp_path, [outside]).gt_instances.masks.masks
    assert masks.sum() == 5 * HEIGHT
    assert masks[0, :, :5].all()


def test_a_polygon_outside_the_image_is_an_empty_mask(tmp_path):
    # The object has a box in the image and stays, as in the official package.
    sample = load(tmp_path, [[100, 100, 200, 100, 200, 200]])
    assert len(sample.gt_instances) == 1
    assert not sample.gt_instances.masks.masks.any()


def test_masks_without_an_image_are_refused():
    init_default_scope('mmdet')
    load = TRANSFORMS.build(
        dict(type='RFDETRLoadAnnotations', with_bbox=True, with_mask=True)
    )
    with pytest.raises(ValueError, match='begin the pipeline with RFDETRLoadImage'):
        load(dict(img_path='a.jpg', height=4, width=4, instances=[]))


@pytest.mark.parametrize('segmentation', [[SQUARE], runs(False), None])
def test_crowds_are_left_out(tmp_path, segmentation, caplog):
    sample = load(tmp_path, segmentation, iscrowd=1)
    assert len(sample.gt_instances) == 0
    assert len(sample.ignored_instances) == 1
    assert not caplog.records


BROKEN = {
    'absent': (None, 'no mask'),
    'empty': ([], 'no mask'),
    'two points': ([[1, 2, 3, 4]], 'no mask of three points or more'),
    'odd': ([[1, 2, 3, 4, 5, 6, 7]], 'no mask of three points or more'),
    'no counts': (dict(size=[HEIGHT, WIDTH]), "without 'counts' or 'size'"),
    'other size': (
        dict(size=[WIDTH, HEIGHT], counts=[2400]),
        'height and width [60, 40] in an image of [40, 60]',
    ),
    'short': (dict(size=[HEIGHT, WIDTH], counts=[10, 10]), 'sum to 20, not 2400'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_objects_without_a_usable_mask_are_left_out_with_a_word(
    tmp_path, name, monkeypatch
):
    said = []
    monkeypatch.setattr(
        'mmdet_rfdetr.segmentation.annotations.print_log',
        lambda text, **_: said.append(text),
    )
    segmentation, problem = BROKEN[name]
    sample = load(tmp_path, [SQUARE], segmentation, segmentation, [BAR])
    assert sample.gt_instances.labels.tolist() == [0, 3]
    assert sample.gt_instances.masks.masks.sum((1, 2)).tolist() == [400, 300]
    assert len(said) == 1
    assert '0.png' in said[0]
    assert problem in said[0]


@pytest.mark.parametrize('name', BROKEN)
def test_evaluation_refuses_them_before_the_first_step(tmp_path, name):
    segmentation, problem = BROKEN[name]
    path = write(tmp_path, [SQUARE], segmentation, segmentation)
    with pytest.raises(BadDataError) as error:
        METRICS.build(
            dict(type='RFDETRCocoMetric', ann_file=path, metric=['bbox', 'segm'])
        )
    assert problem in str(error.value)
    assert '2 have none' in str(error.value)
    assert 'annotation 2 of image 7' in str(error.value)
    METRICS.build(dict(type='RFDETRCocoMetric', ann_file=path, metric='bbox'))


@pytest.mark.parametrize('encoded', [False, True])
def test_evaluation_with_every_kind_of_mask(tmp_path, encoded):
    """Perfect detections of all kinds of masks score 1."""
    kinds = [SQUARE], runs(True), runs(False), [[1, 2, 3, 4], SQUARE]
    path = write(tmp_path, *kinds)
    metric = METRICS.build(
        dict(type='RFDETRCocoMetric', ann_file=path, metric=['bbox', 'segm'])
    )
    metric.dataset_meta = dict(classes=tuple('0123'))
    masks = torch.zeros(4, HEIGHT, WIDTH, dtype=torch.bool)
    masks[:, 10:30, 10:30] = True
    if encoded:
        masks = EncodedMasks([runs(True) for _ in masks], HEIGHT, WIDTH)
    found = dict(
        bboxes=torch.tensor([[10.0, 10, 30, 30]] * 4),
        scores=torch.ones(4),
        labels=torch.arange(4),
        masks=masks,
    )
    sample = dict(img_id=7, ori_shape=(HEIGHT, WIDTH), pred_instances=found)
    metric.process({}, [sample])
    results = metric.evaluate(1)
    assert results['coco/segm_mAP'] == results['coco/bbox_mAP'] == 1


@pytest.mark.parametrize('iscrowd', [0, 1])
def test_detections_in_a_crowd_are_no_mistakes(tmp_path, iscrowd):
    """One object is found, and then three bad ones inside the second one's mask."""
    path = write(tmp_path, [SQUARE], runs(compressed=False))
    document = json.loads((tmp_path / 'annotations.json').read_text())
    for annotation in document['annotations']:
        annotation['category_id'] = 1
    square, crowd = document['annotations']
    square.update(segmentation=[BAR], bbox=[40, 5, 10, 30], area=300)
    crowd.update(iscrowd=iscrowd)
    (tmp_path / 'annotations.json').write_text(json.dumps(document))
    metric = METRICS.build(
        dict(type='RFDETRCocoMetric', ann_file=path, metric=['bbox', 'segm'])
    )
    metric.dataset_meta = dict(classes=('0', '1'))
    masks = torch.zeros(4, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 5:35, 40:50] = True
    masks[1:, 12:18, 12:18] = True
    found = dict(
        bboxes=torch.tensor([[40.0, 5, 50, 35]] + [[12.0, 12, 18, 18]] * 3),
        scores=torch.tensor([0.5, 0.9, 0.8, 0.7]),
        labels=torch.zeros(4, dtype=torch.long),
        masks=masks,
    )
    sample = dict(img_id=7, ori_shape=(HEIGHT, WIDTH), pred_instances=found)
    metric.process({}, [sample])
    results = metric.evaluate(1)
    for kind in ('bbox', 'segm'):
        # The crowd's part that is detected counts as found; otherwise three misses
        # stand before the one hit of two objects.
        expected = 1 if iscrowd else pytest.approx(0.25 * 51 / 101, abs=1e-3)
        assert results[f'coco/{kind}_mAP'] == expected
