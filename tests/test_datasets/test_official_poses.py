"""The official package reads the poses that were converted, and says the same."""

import json

import numpy as np
import pytest
from rfdetr_convert import point_scheme, write_settings, write_yolo
from rfdetr_datasets import read_yolo

from tests import live
from tests.interpreter import run
from tests.test_datasets.folders import draw
from tests.test_datasets.test_poses import NAMES, coco_poses

READ = """
import json
from rfdetr.datasets import yolo
from rfdetr.datasets._keypoint_schema import infer_yolo_keypoint_schema

schema = infer_yolo_keypoint_schema('data.yaml')
folders = 'images/train', 'labels/train', 'data.yaml'
(sample,) = yolo._build_lazy_yolo_keypoint_dataset(*folders, schema)._samples
print(json.dumps(dict(
    names=schema.keypoint_names,
    swap=schema.flip_idx,
    points=sample.keypoints.tolist(),
    boxes=sample.xyxy.tolist(),
)))
"""


@pytest.mark.slow
@live.needs_official
def test_converted_poses_are_read_alike(tmp_path):
    draw(tmp_path / 'images' / 'train', names=('a',))
    rng = np.random.default_rng(0)
    lists = []
    for _ in range(3):
        points = np.concatenate((rng.uniform(0, 40, (3, 2)), [[2], [1], [0]]), axis=1)
        points[2] = 0
        lists.append(points.ravel().tolist())
    document = coco_poses(*lists)
    scheme = point_scheme([document])
    write_yolo(document, tmp_path, 'train', ['person'], scheme=scheme)
    write_settings(tmp_path, ['person'], ['train'], scheme=scheme)
    read = run([live.PYTHON, '-W', 'ignore', '-c', READ], cwd=tmp_path)
    assert read.returncode == 0, read.stderr
    official = json.loads(read.stdout)
    own = read_yolo(str(tmp_path / 'data.yaml'), 'train')
    assert official['names'] == own['categories'][0]['keypoints'] == NAMES
    assert official['swap'] == own['categories'][0]['flip_indices'] == [0, 2, 1]
    for each, points, box, wanted in zip(
        own['annotations'], official['points'], official['boxes'], lists, strict=True
    ):
        assert each['keypoints'] == pytest.approx(wanted, abs=1e-6)
        assert np.ravel(points) == pytest.approx(wanted, abs=1e-5)
        x, y, width, height = each['bbox']
        assert box == pytest.approx([x, y, x + width, y + height], abs=1e-5)
