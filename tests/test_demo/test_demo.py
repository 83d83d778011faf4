import hashlib
import json
import multiprocessing

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS

from mmdet_rfdetr.demo import dataset as demo
from mmdet_rfdetr.demo import drawing as demo_pictures
from mmdet_rfdetr.demo.drawing import CLASSES, draw_picture

SMALL = dict(num_train=6, num_val=3, picture_size=64)


def build(root, split='train', **changes):
    return DATASETS.build(
        dict(
            dict(
                SMALL,
                type='RFDETRDemoDataset',
                data_root=str(root),
                ann_file=f'annotations/{split}.json',
                data_prefix=dict(img=f'{split}/'),
                pipeline=[dict(type='LoadImageFromFile')],
            ),
            **changes,
        )
    )


@pytest.fixture(scope='module')
def pictures():
    return [draw_picture(0, 0, index, 128) for index in range(150)]


def test_boxes_are_as_promised(pictures):
    counts = {len(boxes) for _, boxes, _ in pictures}
    assert counts == {1, 2, 3, 4, 5, 6}
    boxes = np.concatenate([boxes for _, boxes, _ in pictures])
    sides = boxes[:, 2:] / 128
    assert 0.09 <= sides.min() < 0.1
    assert 0.38 < sides.max() <= 0.40
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 128
    labels = np.concatenate([labels for _, _, labels in pictures])
    assert np.bincount(labels, minlength=len(CLASSES)).min() > 50


def test_overlaps_are_bounded_and_occur(pictures):
    largest = 0
    for _, boxes, _ in pictures:
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                common = np.minimum(a[:2] + a[2:], b[:2] + b[2:])
                common = np.maximum(common - np.maximum(a[:2], b[:2]), 0).prod()
                largest = max(largest, common / min(a[2:].prod(), b[2:].prod()))
    assert 0.25 < largest <= 0.3


def test_shapes_fill_their_boxes():
    """A lone shape on black changes pixels right up to the borders of its box."""
    for label, kind in enumerate(CLASSES):
        canvas = np.zeros((64, 64, 3), np.float32)
        box = np.array([10.3, 20.6, 30.4, 25.2])
        random = np.random.RandomState(label)
        demo_pictures._draw_shape(random, canvas, box, kind)
        rows, columns = np.nonzero(canvas.max(axis=2) > 0)
        assert (columns.min(), columns.max()) == (10, 40), kind
        assert (rows.min(), rows.max()) == (20, 45), kind
        share = (canvas.max(axis=2) / canvas.max()).sum() / box[2:].prod()
        expected = dict(
            ellipse=np.pi / 4,
            rectangle=1,
            triangle=0.5,
            star=0.31,
        )
        assert share == pytest.approx(expected[kind], abs=0.02), kind


def test_the_same_settings_draw_the_same_picture():
    first, boxes, _ = draw_picture(3, 1, 5, 64)
    again, same_boxes, _ = draw_picture(3, 1, 5, 64)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(boxes, same_boxes)
    for other in ((4, 1, 5, 64), (3, 0, 5, 64), (3, 1, 6, 64)):
        assert not np.array_equal(draw_picture(*other)[0], first)


def test_pictures_have_not_changed():
    """Whoever changes them raises demo._VERSION, so that old folders are noticed."""
    picture, boxes, labels = draw_picture(0, 0, 0, 64)
    assert demo._VERSION == 1
    assert boxes.round(2).tolist() == GOLDEN_BOXES
    assert labels.tolist() == GOLDEN_LABELS
    # Sines differ in the last bit between machines, which can turn a rounding.
    np.testing.assert_allclose(picture.mean(axis=(0, 1)), GOLDEN_MEAN, atol=0.01)


GOLDEN_BOXES = [
    [38.72, 37.59, 12.66, 18.18],
    [13.18, 30.87, 16.35, 12.8],
    [1.16, 40.98, 22.21, 20.92],
    [21.3, 41.5, 19.54, 10.94],
    [29.43, 33.09, 15.74, 9.24],
    [44.61, 8.21, 13.11, 25.37],
]
GOLDEN_LABELS = [1, 1, 3, 1, 1, 3]
GOLDEN_MEAN = [63.6, 74.704, 70.769]


def test_first_use_writes_coco_data(tmp_path):
    root = tmp_path / 'new' / 'demo'
    dataset = build(root)
    assert len(dataset) == 6
    assert dataset.metainfo['classes'] == CLASSES
    document = json.loads((root / 'annotations' / 'train.json').read_text())
    picture, boxes, labels = draw_picture(0, 0, 2, 64)
    assert document['images'][2]['file_name'] == '000002.jpg'
    annotations = [a for a in document['annotations'] if a['image_id'] == 3]
    assert [a['bbox'] for a in annotations] == boxes.tolist()
    item = dataset[2]
    assert [i['bbox_label'] for i in item['instances']] == labels.tolist()
    error = np.abs(item['img'].astype(int) - picture)
    assert error.mean() < 6  # JPEG
    assert len(build(root, 'val')) == 3
    assert not list(root.parent.glob('.*'))


def test_later_uses_read_what_is_there(tmp_path):
    build(tmp_path / 'demo')
    path = tmp_path / 'demo' / 'train' / '000000.jpg'
    before = path.stat().st_mtime_ns
    build(tmp_path / 'demo')
    assert path.stat().st_mtime_ns == before


def test_other_settings_are_named(tmp_path):
    build(tmp_path)
    with pytest.raises(FileExistsError, match="'seed': 0.*'seed': 1.*data_root"):
        build(tmp_path, seed=1)


def test_the_number_of_the_other_pictures_may_differ(tmp_path):
    build(tmp_path)
    assert len(build(tmp_path, 'val', num_train=4000)) == 3
    with pytest.raises(FileExistsError, match="'num_val': 3.*'num_val': 4"):
        build(tmp_path, 'val', num_val=4)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(FileExistsError, match='holds no demo pictures'):
        build(tmp_path)
    assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


def digest(root):
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return hashlib.sha256(b''.join(path.read_bytes() for path in files)).hexdigest()


def test_processes_that_start_together_agree(tmp_path):
    root = tmp_path / 'demo'
    settings = dict(SMALL, version=1, seed=0)
    context = multiprocessing.get_context('fork')
    barrier = context.Barrier(3)

    def work():
        barrier.wait()
        demo.write_demo(root, settings)

    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    demo.write_demo(tmp_path / 'alone', settings)
    assert digest(root) == digest(tmp_path / 'alone')
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == '.'] == []


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, 'draw_picture', fail)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / 'demo')
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, 'imwrite', lambda *args: False)
    with pytest.raises(OSError, match='is the disk full'):
        build(tmp_path / 'demo')
    assert list(tmp_path.iterdir()) == []
