"""Points move with the pixels, whatever moves these."""

import copy
import random

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_rfdetr.data.multi_scale import scale_instances
from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.keypoints.point_boxes import PointBoxes
from tests.test_keypoints.data import (
    LOAD,
    OBJECT,
    PACK,
    PERSON,
    dataset,
    objects,
    write,
)


@pytest.fixture(autouse=True, scope='module')
def scope():
    init_default_scope('mmdet')


SQUARE = dict(image_size=64, size_divisor=16)
GEOMETRY = [
    dict(type='RFDETRResize', sizes=[(80, 180)]),
    dict(type='RFDETRRandomSquareCrop', min_side=24, max_side=40),
    dict(type='Resize', scale=(30, 20)),
    dict(type='ResizeShortestEdge', scale=80, max_size=200),
    dict(type='FixShapeResize', width=90, height=40),
    dict(type='Pad', size=(100, 100)),
    dict(type='RandomFlip', prob=1.0),
    dict(type='RandomFlip', prob=1.0, direction='vertical'),
    dict(type='RandomFlip', prob=1.0, direction='diagonal'),
    dict(type='RandomShift', prob=1.0, max_shift_px=8, filter_thr_px=1),
    dict(type='RandomCrop', crop_size=(24, 40)),
    dict(type='Expand', prob=1.0),
    dict(type='MinIoURandomCrop', min_ious=(0.1,)),
    dict(
        type='RandomAffine',
        max_rotate_degree=20.0,
        max_translate_ratio=0.05,
        scaling_ratio_range=(0.9, 1.1),
        max_shear_degree=5.0,
    ),
    *(
        dict(type=name, prob=1.0, level=10, max_mag=most)
        for name, most in dict(
            Rotate=30.0, ShearX=15.0, ShearY=15.0, TranslateX=0.2, TranslateY=0.2
        ).items()
    ),
]


def picture_with_a_dot(folder, x, y):
    """A data set of a black picture with a white dot, where a point says that it is."""
    write(folder, [dict(PERSON, keypoints=[x, y, 2, 0, 0, 0, 0, 0, 0])])
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    cv2.imwrite(str(folder / 'a.png'), picture)
    return folder


def point_and_dot(data):
    """(2,) the point that is seen, None if none is, and the middle of the dot."""
    gt = data['data_samples'].gt_instances
    bright = data['inputs'].float().mean(0)
    bright = (bright - 130).clamp(min=0)  # what fills the borders is grey
    rows, columns = (torch.arange(side).float() for side in bright.shape)
    middle = (bright * columns).sum(), (bright * rows[:, None]).sum()
    seen = gt.keypoints[gt.keypoints_visible > 0]
    assert len(seen) <= 1
    return seen[0] if len(seen) else None, torch.stack(middle) / bright.sum()


def assert_the_point_stays_on_the_dot(data):
    """Over some draws, in which it is seen at least half of the times."""
    times = 0
    for seed in range(8):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        point, dot = point_and_dot(data[0])
        if point is not None:
            assert (point - dot).abs().max() < 1.5, seed
            times += 1
    assert times >= 4


@pytest.mark.parametrize('transform', GEOMETRY, ids=lambda value: value['type'])
def test_points_move_with_the_pixels(tmp_path, transform):
    """A white dot of 3 x 3 pixels is where its point says, whatever moved it."""
    folder = picture_with_a_dot(tmp_path, 26, 19)
    assert_the_point_stays_on_the_dot(dataset(folder, transform))


@pytest.mark.parametrize('flip_prob', (0.0, 1.0))
def test_points_move_with_the_pixels_of_the_jittered_loader(tmp_path, flip_prob):
    folder = picture_with_a_dot(tmp_path, 26, 19)
    data = dataset(folder)
    jitter = dict(short_sides=(60, 80), crop_sides=(40, 60), flip_prob=flip_prob)
    loader = dict(type='RFDETRLoadJittered', **SQUARE, **jitter)
    steps = [TRANSFORMS.build(step) for step in (LOAD, loader, PACK)]
    data.pipeline.transforms = steps
    assert_the_point_stays_on_the_dot(data)


@pytest.mark.parametrize(
    'name',
    [
        *('PhotoMetricDistortion', 'YOLOXHSVRandomAug', 'Color', 'Brightness'),
        *('Contrast', 'Sharpness', 'Solarize', 'SolarizeAdd', 'Posterize', 'Equalize'),
        *('AutoContrast', 'Invert'),
    ],
)
def test_what_changes_colours_leaves_points_alone(tmp_path, name):
    folder = write(tmp_path, [PERSON, OBJECT])
    prob = (
        {} if name in ('PhotoMetricDistortion', 'YOLOXHSVRandomAug') else dict(prob=1.0)
    )
    found = objects(dataset(folder, dict(type=name, **prob)))
    plain = objects(dataset(folder))
    assert found.keypoints.equal(plain.keypoints)
    assert found.keypoints_visible.equal(plain.keypoints_visible)
    assert plain.keypoints_visible.any()


def test_sides_are_swapped_by_a_mirror_and_not_by_two(tmp_path):
    folder = write(tmp_path, [PERSON])
    for direction, visible in (
        ('horizontal', [2, 2, 1]),
        ('vertical', [2, 2, 1]),
        ('diagonal', [2, 1, 2]),
    ):
        flip = dict(type='RandomFlip', prob=1.0, direction=direction)
        found = objects(dataset(folder, flip))
        assert found.keypoints_visible.tolist() == [visible], direction


def test_a_crop_drops_what_leaves(tmp_path):
    boxes = PointBoxes(
        [[0.0, 0, 60, 40]],
        points=torch.tensor([[[5.0, 5, 2], [30, 30, 1], [10, 35, 2]]]),
        swap=[0, 2, 1],
    )
    boxes.translate_((-8, 0))
    boxes.clip_((32, 32))
    assert boxes.points.tolist() == [[[0, 0, 0], [22, 30, 1], [0, 0, 0]]]
    boxes.translate_((8, 8))  # what has left does not come back
    boxes.clip_((100, 100))
    assert boxes.points[0, :, 2].tolist() == [0, 1, 0]


def test_mosaics_and_filters_keep_points_and_boxes_together(tmp_path):
    points = torch.arange(18.0).view(2, 3, 3)
    boxes = PointBoxes(torch.rand(2, 4), points=points, swap=[0, 1, 2])
    joined = PointBoxes.cat([boxes, copy.deepcopy(boxes)])
    kept = joined[np.array([False, True, True, False])]
    assert kept.points.tolist() == points[[1, 0]].tolist()
    assert kept[0].points.tolist() == points[[1]].tolist()


@pytest.mark.parametrize(
    ('transform', 'images'),
    [
        (dict(type='Mosaic', img_scale=(60, 40)), 4),
        (dict(type='MixUp', img_scale=(60, 40)), 2),
        (dict(type='Expand', prob=1.0), 1),
        (dict(type='MinIoURandomCrop', min_ious=(0.1,)), 1),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_other_transforms_of_mmdet_keep_them_together(tmp_path, transform, images):
    """Points that are labelled stay within their boxes."""
    inner = [[10, 5, 30, 30], [20, 8, 2, 12, 20, 1, 38, 21, 2]]
    folder = write(tmp_path, [dict(PERSON, bbox=inner[0], keypoints=inner[1])])
    data = DATASETS.build(
        dict(
            type='MultiImageMixDataset',
            dataset=dict(
                type='RFDETRCocoKeypointDataset',
                ann_file=str(folder / 'a.json'),
                data_prefix=dict(img=str(folder)),
                metainfo=dict(classes=('person',)),
                pipeline=[dict(type='RFDETRLoadImage'), LOAD],
            ),
            pipeline=[transform, PACK],
        )
    )
    np.random.seed(1)
    gt = data[0]['data_samples'].gt_instances
    boxes, seen = gt.bboxes.tensor[:, None], gt.keypoints_visible > 0
    assert 1 <= len(gt) <= images and seen.any()
    inside = (gt.keypoints >= boxes[..., :2] - 1) & (gt.keypoints <= boxes[..., 2:] + 1)
    assert inside.all(-1)[seen].all()


def test_a_transform_that_makes_new_boxes_is_refused(tmp_path):
    folder = write(tmp_path, [dict(PERSON, segmentation=[[10, 5, 40, 5, 40, 35]])])
    erase = dict(type='RandomErasing', n_patches=2, ratio=0.1)
    with pytest.raises(SettingError, match='take out what makes boxes anew'):
        dataset(folder, erase)[0]
    inner = dataset(folder)
    loader = TRANSFORMS.build(dict(LOAD, with_mask=True))
    inner.pipeline.transforms[1:] = [loader]
    paste = dict(type='CopyPaste', max_num_pasted=9, bbox_occluded_thr=100)
    mixed = DATASETS.build(
        dict(type='MultiImageMixDataset', dataset=inner, pipeline=[paste, PACK])
    )
    np.random.seed(1)
    with pytest.raises(SettingError, match='take it .CopyPaste'):
        mixed[0]


def test_albumentations_of_the_pixels_leave_points_alone(tmp_path):
    pytest.importorskip('albumentations')
    folder = write(tmp_path, [PERSON])
    blur = [dict(type='GaussianBlur', p=1.0)]
    albu = dict(type='Albu', transforms=blur, keymap=dict(img='image'))
    found = objects(dataset(folder, albu))
    assert found.keypoints.tolist() == objects(dataset(folder)).keypoints.tolist()
    fields = ['gt_bboxes_labels', 'gt_ignore_flags']
    boxes = dict(type='BboxParams', format='pascal_voc', label_fields=fields)
    flip = [dict(type='HorizontalFlip', p=1.0)]
    keymap = dict(img='image', gt_bboxes='bboxes')
    albu = dict(type='Albu', transforms=flip, keymap=keymap, bbox_params=boxes)
    with pytest.raises(SettingError, match='take out what makes boxes anew'):
        dataset(folder, albu)[0]


def test_without_sides_nothing_is_mirrored_and_one_line_says_so(tmp_path, caplog):
    categories = [dict(id=1, name='person', keypoints=['a', 'b', 'c'])]
    folder = write(tmp_path, [PERSON], categories)
    flip = dict(type='RandomFlip', prob=1.0)
    choice = dict(type='RandomChoice', transforms=[[flip]])
    data = dataset(folder, flip, choice)
    assert objects(data).keypoints[0, 0].tolist() == [20, 8]
    jittered = dict(
        type='RFDETRLoadJittered', image_size=64, size_divisor=16, flip_prob=1.0
    )
    assert dataset(folder, jittered).pipeline.transforms[2].flip_prob == 0
    advised = dataset(folder, flip, flip_indices=[0, 2, 1])
    assert objects(advised).keypoints[0, 0].tolist() == [39, 8]
    with pytest.raises(SettingError, match='flip_indices.*, or take it out'):
        PointBoxes([[0.0, 0, 1, 1]], points=torch.zeros(1, 3, 3)).flip_((4, 4))


def test_points_follow_a_batch_to_another_size():
    instances = InstanceData(
        bboxes=torch.tensor([[1.0, 2, 3, 4]]), keypoints=torch.tensor([[[1.0, 2]]])
    )
    scale_instances(instances, (2.0, 3.0))
    assert instances.bboxes.tolist() == [[2, 6, 6, 12]]
    assert instances.keypoints.tolist() == [[[2, 6]]]
