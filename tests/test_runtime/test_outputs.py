"""What is written about pictures, and what other programs read in it."""

import contextlib
import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as run_lengths
import pytest
import supervision
from pycocotools.coco import COCO
from rfdetr_predict.__main__ import KINDS, main
from rfdetr_predict.outputs import Outputs
from rfdetr_runtime import Detections, Detector, Picture
from rfdetr_runtime.detections import encode_mask

from mmdet_rfdetr.runtime import to_data_sample
from tests.test_runtime.squares import COLOURS, NAMES, Squares, draw, write_video

SIZE = (60, 80)
PICTURES = {
    'a.png': [('red', 5, 10, 25, 30), ('blue', 40, 5, 78, 55)],
    'deep/b.png': [],
    'deep/c.png': [('green', 0, 0, 80, 60)],
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('outputs')
    (folder / 'deep').mkdir()
    for name, objects in PICTURES.items():
        cv2.imwrite(str(folder / name), draw(SIZE, *objects))
    (folder / 'deep' / 'd.png').write_bytes(b'')
    frames = [draw(SIZE, ('red', 2 * n, 5, 2 * n + 20, 40)) for n in range(6)]
    write_video(folder / 'deep' / 'e.avi', frames, rate=12)
    return folder


def run(*arguments):
    """Run the command with squares for a model: exit code, and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(
            ['squares', *map(str, arguments), '--threshold', '0.1'],
            open_model=lambda args: Squares(),
        )
    return code, said.getvalue()


@pytest.fixture(scope='module')
def results(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('results') / 'below'
    code, said = run(folder, '--out', out, '--save', *KINDS)
    assert code == 0
    assert '9 pictures, 9 objects' in said
    assert 'left out: deep/d.png: has zero bytes' in said
    return out


def test_json_has_a_line_for_each_picture(results):
    rows = [
        json.loads(line)
        for line in (results / 'detections.jsonl').read_text().splitlines()
    ]
    assert [row['image'] for row in rows] == [*PICTURES, 'deep/d.png'] + [
        'deep/e.avi'
    ] * 6
    first = rows[0]
    assert (first['width'], first['height']) == (80, 60)
    assert [each['name'] for each in first['detections']] == ['blue', 'red']
    blue = first['detections'][0]
    assert blue['box'] == [40, 5, 78, 55] and blue['label'] == 2
    mask = run_lengths.decode(blue['mask'])
    assert mask[5:55, 40:78].all() and mask.sum() == 50 * 38
    assert 'zero bytes' in rows[3]['error']
    assert rows[1]['detections'] == []
    assert [row['frame'] for row in rows[4:]] == list(range(6))
    assert rows[5]['seconds'] == round(1 / 12, 3)


def test_coco_results_are_loaded_by_pycocotools(results):
    with contextlib.redirect_stdout(None):
        truth = COCO(str(results / 'coco_images.json'))
        loaded = truth.loadRes(str(results / 'coco.json'))
    assert [each['file_name'] for each in truth.dataset['images']][:2] == [
        *('a.png', 'deep/b.png')
    ]
    assert [each['name'] for each in truth.dataset['categories']] == list(NAMES)
    found = loaded.loadAnns(loaded.getAnnIds(imgIds=[1]))
    assert [each['bbox'] for each in found] == [[40, 5, 38, 50], [5, 10, 20, 20]]
    assert [each['area'] for each in found] == [38 * 50, 400]  # of the masks
    assert [each['category_id'] for each in found] == [3, 1]


def test_coco_results_have_the_ids_of_a_coco_file(folder, tmp_path):
    kinds = [dict(id=i, name=name) for i, name in ((90, 'red'), (17, 'blue'))]
    images = [dict(id=70, file_name='a.png', height=60, width=80)]
    path = tmp_path / 'some.json'
    path.write_text(json.dumps(dict(images=images, annotations=[], categories=kinds)))
    code, _ = run(path, '--root', folder, '--out', tmp_path, '--save', 'coco')
    assert code == 0
    found = json.loads((tmp_path / 'coco.json').read_text())
    assert [each['category_id'] for each in found] == [17, 90]
    assert {each['image_id'] for each in found} == {70}


def test_yolo_and_csv_are_tables(results):
    texts = {
        path.relative_to(results / 'labels').as_posix(): path.read_text()
        for path in (results / 'labels').rglob('*.txt')
    }
    assert {'a.txt', 'deep/b.txt', 'deep/c.txt', 'deep/e/000005.txt'} <= set(texts)
    assert texts['deep/b.txt'] == ''
    label, *numbers, score = texts['deep/c.txt'].split()
    assert label == '1' and [float(n) for n in numbers] == [0.5, 0.5, 1, 1]
    assert 0 < float(score) < 1
    rows = list(csv.DictReader((results / 'detections.csv').read_text().splitlines()))
    assert len(rows) == 9
    assert (
        rows[0]['name'] == 'blue' and rows[0]['frame'] == '' and rows[0]['x1'] == '40.0'
    )
    assert [row['frame'] for row in rows[3:]] == list('012345')


def test_pictures_and_crops_are_drawn(results):
    drawn = cv2.imread(str(results / 'pictures' / 'deep' / 'c.png'))
    assert drawn.shape == (*SIZE, 3)
    assert (drawn != draw(SIZE, *PICTURES['deep/c.png'])).any(axis=2).mean() > 0.1
    plain = cv2.imread(str(results / 'pictures' / 'deep' / 'b.png'))
    assert not plain.any()
    assert len(list((results / 'pictures').rglob('*.png'))) == 3
    crop = cv2.imread(str(results / 'crops' / 'blue' / 'a_0.png'))
    assert crop.shape == (50, 38, 3) and (crop == COLOURS['blue']).all()


def test_a_video_keeps_its_rate_and_length(results):
    (path,) = (results / 'videos').rglob('*.mp4')
    assert path.relative_to(results / 'videos').as_posix() == 'deep/e.mp4'
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == 12
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 80


def test_options_choose_what_is_kept(folder, tmp_path, capsys):
    some = ['--out', tmp_path, '--stdout', '--quiet']
    code, said = run(folder / 'a.png', *some, '--classes', 'red')
    assert (code, said) == (0, '') and not any(tmp_path.iterdir())
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [each['name'] for each in row['detections']] == ['red']
    run(folder / 'a.png', *some, '--max-dets', 1)
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [each['name'] for each in row['detections']] == ['blue']
    code, said = run(folder / 'a.png', *some, '--classes', 'purple')
    assert code == 1 and "no class 'purple': the model has red, green, blue" in said
    code, said = run(folder / 'a.png', *some, '--batch', 0)
    assert code == 1 and 'batch=0' in said
    code, said = run(folder / 'deep' / 'd.png', *some)
    assert code == 1 and 'zero bytes' in said


def test_a_folder_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / 'file').touch()
    code, said = run(folder / 'a.png', '--out', tmp_path / 'file')
    assert code == 1 and f'{tmp_path / "file"} cannot be written' in said


@pytest.mark.parametrize('seed', range(20))
def test_run_lengths_are_those_of_coco(seed):
    random = np.random.default_rng(seed)
    mask = random.random((random.integers(1, 90), random.integers(1, 90)))
    mask = mask < random.choice([0, 0.02, 0.5, 0.98, 1])
    expected = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_mask(mask)['size'] == expected['size']
    assert encode_mask(mask)['counts'] == expected['counts'].decode()


def test_long_runs_are_those_of_coco():
    mask = np.zeros((900, 1100), bool)
    mask[100:800, 3] = mask[:, 500:700] = True
    expected = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_mask(mask)['counts'] == expected['counts'].decode()


def test_detections_become_those_of_others():
    image = draw(SIZE, *PICTURES['a.png'])
    found = Detector(Squares(), threshold=0.1)(image)
    assert isinstance(found, Detections)
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert np.array_equal(theirs.xyxy, found.boxes)
    assert theirs.data['class_name'].tolist() == ['blue', 'red']
    assert theirs.mask.shape == (2, *SIZE)
    sample = to_data_sample(found, SIZE)
    assert np.array_equal(sample.pred_instances.bboxes, found.boxes)
    assert np.array_equal(sample.pred_instances.masks, found.masks)
    assert sample.ori_shape == SIZE


def test_names_that_differ_in_their_suffix_are_all_written(tmp_path):
    image = draw((40, 60), ('red', 5, 5, 20, 20))
    found = Detector(Squares(), threshold=0.1)(image)
    outputs = Outputs(['yolo', 'video', 'pictures'], tmp_path, NAMES, {})
    for name in ('a.png', 'a.jpg'):
        outputs.write(Picture(image, name), found)
    for name in ('v.avi', 'v.mp4'):
        for frame in range(2):
            outputs.write(Picture(image, name, 0, None, frame, frame / 5, 5.0), found)
    outputs.close()

    def written(folder):
        files = (tmp_path / folder).rglob('*.*')
        return sorted(
            str(each.relative_to(tmp_path / folder)) for each in files if each.is_file()
        )

    frames = [f'{name}/00000{n}' for name in ('v', 'v.mp4') for n in range(2)]
    labels = ['a.jpg.txt', 'a.txt', *(f'{each}.txt' for each in frames)]
    assert written('labels') == sorted(labels)
    pictures = ['a.jpg', 'a.png', *(f'{each}.jpg' for each in frames)]
    assert written('pictures') == sorted(pictures)
    assert written('videos') == ['v.mp4', 'v.mp4.mp4']


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        ('json', 'detections.jsonl'),
        ('csv', 'detections.csv'),
        ('coco', 'coco.json'),
        ('yolo', 'labels/a.txt'),
        ('pictures', 'pictures/a.png'),
        ('crops', 'crops/red/a_0.png'),
    ],
)
def test_a_full_disk_is_told_in_a_sentence(tmp_path, capsys, kind, name):
    cv2.imwrite(str(tmp_path / 'a.png'), draw(SIZE, ('red', 3, 3, 20, 20)))
    path = tmp_path / 'out' / name
    path.parent.mkdir(parents=True)
    path.symlink_to('/dev/full')
    arguments = ['x', str(tmp_path / 'a.png'), '--out', str(tmp_path / 'out')]
    options = ['--threshold', '0.1', '--save', *dict.fromkeys([kind, 'coco'])]
    code = main([*arguments, *options], open_model=lambda _: Squares())
    assert code == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert 'error: the results cannot be written: [Errno 28] No space left' in said
    if kind != 'coco':  # the others are whole
        assert isinstance(json.loads((tmp_path / 'out/coco.json').read_text()), list)


def test_results_that_cannot_be_written_are_told_in_a_sentence(tmp_path, capsys):
    folder = tmp_path / 'in'
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), draw(SIZE))
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'labels').touch()  # no folder
    arguments = ['some.py', str(folder), '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--save', 'yolo'], open_model=lambda _: Squares()) == 1
    assert 'error: the results cannot be written: ' in capsys.readouterr().err
