"""Objects that need no second look: the same data and findings as with one."""

import copy
import random

import pytest

from mmdet_rfdetr.faults import annotations as checks
from mmdet_rfdetr.faults.coco_metric import CheckedCocoMetric
from mmdet_rfdetr.faults.findings import Finding
from tests.factory import ANIMALS, build, coco, document, write

ODD = (
    *(None, True, False, 0, 1, -1, 1.0, -0.0, 0.5, 10**30, 1e300, -1e300, 10**400),
    *(float('nan'), float('inf'), '', '1', '01', '7.5', 'x', 'true', [], [1], {}),
    *([1, 2, 3, 4], ['1', 2, 3, 4], [0, 0, 1, 1], [0.1, 0.1, 0.5, 0.5], [5, 5, 0, 9]),
    *([1, 2, 3], [90, 90, 9, 9], [-3, -3, 9, 9], [1, 2, None, 4], [1e300] * 4),
    *([[1, 1, 2, 2]], [[1, 1, 9, 1, 9, 9]], [[0, 0, 0.5, 0, 0.5, 0.5]], [[]], [None]),
    *([['1', 1, 9, 1, 9, 9]], [[1e9, 1, 9, 1, 9, 9]], dict(size=[40, 60], counts='1')),
    *(dict(size=['40', 60], counts=['2400']), dict(counts=[1]), 70, '70', 70.0, 17, 90),
)
SQUARE = (5, 5, 20, 5, 20, 15, 5, 15)
POLYGONS = (
    *([], [1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7], [9, 9] * 200, [0] * 6),
    *([0.1, 0.1, 1, 0.1, 1, 1], [0.1, 0.1, 0.9, 0.1, 0.9, 0.9], [-5, -5, 1, -5, 1, 1]),
    *([-10_000, 5, 9, 9, 10_000, 5], [-10_000.5, *SQUARE[1:]], [*SQUARE[:7], 10_001]),
    *([9, 9, -9000, 9] * 70, [-9000, -9000, 9000, 9000] * 60, [10**400, *SQUARE[1:]]),
    *([*SQUARE[:3], odd, *SQUARE[4:]] for odd in ODD[:19]),
    *(None, True, 5, '123456', {str(key): key for key in range(6)}, [[5, 5]] * 6),
)
KEYS = (
    *('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'ignore'),
    'segmentation',
)


def faulty(seed):
    """A document in which a third of the objects have something odd."""
    rng = random.Random(seed)
    data = document()
    sizes = {image['id']: image for image in data['images']}
    data['annotations'] = []
    for number in range(300):
        image = sizes[rng.choice([70, 3, 12])]
        left, top, width, height = (rng.random() for _ in range(4))
        box = left * image['width'], top * image['height'], width * 40, height * 40
        entry = dict(
            id=number,
            image_id=image['id'],
            category_id=rng.choice([17, 90]),
            bbox=[round(side, rng.choice([0, 2])) for side in box],
        )
        mask = [
            [1 + 38 * rng.random() for _ in range(8)] for _ in range(rng.randrange(3))
        ]
        if rng.random() < 0.2:
            mask.insert(rng.randrange(3), copy.deepcopy(rng.choice(POLYGONS)))
        others = dict(area=rng.random() * 99, iscrowd=0, ignore=0, segmentation=mask)
        entry |= {key: others[key] for key in others if rng.random() < 0.8}
        if rng.random() < 0.3:
            entry[rng.choice(KEYS)] = copy.deepcopy(rng.choice(ODD))
        if rng.random() < 0.02:
            del entry[rng.choice([*entry])]
        if rng.random() < 0.01:
            entry = rng.choice(ODD)
        data['annotations'].append(entry)
    return data


def outcome(folder):
    """What a data set and a metric make of a file, to the letter."""
    dataset = build(folder, check_images=True, pipeline=[])
    metric = CheckedCocoMetric(str(folder / 'annotations.json'))
    metric.dataset_meta = dict(classes=ANIMALS)
    keys = 'id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'ignore'
    return (
        dataset.findings.table(),
        [dataset.get_data_info(index) for index in range(len(dataset))],
        dataset.object_counts,
        dict(dataset.cat_img_map),
        [
            [annotation.get(key, 0) for key in keys]
            for annotation in metric._coco_api.anns.values()
        ],
    )


@pytest.mark.parametrize('seed', range(8))
def test_tables_and_data_stay_the_same(tmp_path, monkeypatch, seed):
    folder = write(tmp_path, faulty(seed))
    quick = outcome(folder)
    monkeypatch.setattr(checks, 'PLAIN_CHECKS', [])
    assert outcome(folder) == quick
    assert len(quick[0].splitlines()) > 8  # most kinds of faults of objects


def test_sound_objects_are_looked_at_once(tmp_path, monkeypatch):
    """And those that are not, again."""
    looks = []
    numbers = checks._numbers
    monkeypatch.setattr(
        checks, '_numbers', lambda *values: looks.append(0) or numbers(*values)
    )
    data = coco((9, 9), classes=ANIMALS)
    for entry in data['annotations']:
        entry['segmentation'] = [[*SQUARE], [*SQUARE, 9, 9]]
    data['annotations'][3]['segmentation'] = []
    data['annotations'][3]['bbox'][0] = '1'
    data['annotations'][4]['segmentation'] = [[*SQUARE[:7], '15'], [*SQUARE]]
    findings = build(write(tmp_path, data, data)).findings
    assert findings.counts[Finding.TEXT_NUMBER] == 1 + 1
    assert len(looks) == 1 + 3  # boxes and polygons
