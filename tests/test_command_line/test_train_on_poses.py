"""``tools/train_on.py --pose``: from a folder of poses to a config and a run."""

import json
from pathlib import Path

import pytest

from mmdet_rfdetr.command_line import overview
from tests.test_command_line.test_train_on import (
    ONE_EPOCH,
    WRITERS,
    as_coco,
    as_yolo,
    column,
    read,
)

NAMES = ['nose', 'left_hand', 'right_hand']


def as_coco_poses(folder):
    """Objects of the first class have three points, and others none."""
    as_coco(folder)
    for path in (folder / 'annotations').iterdir():
        document = json.loads(path.read_text())
        document['categories'][0].update(keypoints=NAMES, skeleton=[[1, 2], [1, 3]])
        for each in document['annotations']:
            if each['category_id'] == document['categories'][0]['id']:
                x, y, width, height = each['bbox']
                hands = x, y + height / 2, 1, x + width - 1, y + height / 2, 0
                each['keypoints'] = [x + width / 2, y, 2, *hands]
        path.write_text(json.dumps(document))


def as_yolo_poses(folder):
    """All classes have three points."""
    as_yolo(folder)
    for path in (folder / 'labels').rglob('*.txt'):
        lines = [line.split()[:5] for line in path.read_text().splitlines()]
        path.write_text(
            ''.join(
                f'{" ".join(line)} {line[1]} {line[2]} 2 0 0 0 0 0 0\n'
                for line in lines
            )
        )
    with open(folder / 'data.yaml', 'a') as settings:
        settings.write('kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\n')


@pytest.mark.parametrize(
    ('write_poses', 'counts'),
    [
        (as_coco_poses, [3, 0, 0]),
        pytest.param(as_yolo_poses, [3, 3, 3], marks=pytest.mark.long),
    ],
)
def test_points_are_drawn_and_learned(train_on, tmp_path, write_poses, counts):
    write_poses(tmp_path / 'data')
    said = train_on(tmp_path / 'data', '--pose', *ONE_EPOCH, '--config', 'own.py')
    with_points = [int(number) for number in column(said, 'with points')]
    objects = [int(number) for number in column(said, 'objects')]
    assert all(
        0 < some <= both for some, both in zip(with_points, objects, strict=True)
    )
    cfg, built = read('own.py')
    assert cfg.model.keypoint_head.num_keypoints == counts
    assert built['train'].metainfo['flip_indices'] == [0, 2, 1]
    assert built['train'][0]['data_samples'].gt_instances.keypoints.shape[1:] == (3, 2)
    step = dict(type='RFDETRLoadKeypoints', with_bbox=True)
    shown = [found for _, found in overview.samples(built['train'], step, 3)]
    assert all(found.keypoints.shape == (len(found), 3, 2) for found in shown)
    (log,) = Path('work_dirs/own').glob('*/*.log')
    text = log.read_text()
    assert 'loss_kpt_nll' in text and 'coco/keypoints_mAP:' in text


@pytest.mark.parametrize('kind', ['coco', 'csv'])
def test_points_have_to_be_there(train_on, tmp_path, kind):
    WRITERS[kind](tmp_path / 'data')
    with pytest.raises(SystemExit, match='learns keypoints, and the objects have none'):
        train_on(tmp_path / 'data', '--pose', '--dry-run')
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ('model', 'weights'), [('nano', 'nano'), ('preview', 'keypoint-preview')]
)
def test_poses_begin_with_the_weights_of_the_detector(
    train_on, tmp_path, model, weights
):
    as_coco_poses(tmp_path / 'data')
    arguments = ['--model', model, '--weights', 'official', '--dry-run']
    train_on(tmp_path / 'data', '--pose', *arguments)
    text = Path(f'data_pose-{model}.py').read_text()
    assert f"load_from = 'rfdetr://{weights}'" in text
