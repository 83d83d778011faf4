"""Readers of others on our file: the official decoder, and a server's arithmetic."""

import json
import re
import shutil

import cv2
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from rfdetr_runtime import open_model, prepare

from tests.factory import CLASSES
from tests.fixtures import REPOSITORY
from tests.interpreter import run
from tests.live import PYTHON, needs_official
from tests.test_deploy.test_exporting import IMAGES

THRESHOLD = 0.3


def raw_outputs(path):
    """Outputs by their place, as readers ask for them that know no names."""
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider']
    )
    (source,) = session.get_inputs()
    inputs = prepare(IMAGES, open_model(path).metadata)
    return session.run(None, {source.name: inputs})


def read_as_server(boxes, logits, size, most, class_count, masks=None):
    """Detections of an image by the inference server's published arithmetic.

    Sigmoid of every column, the best pairs of query and column whatever the column,
    those above the threshold, boxes scaled to the picture and clipped; last, labels
    beyond the names are dropped. The mask of a pair is that of its query, brought to
    the size of the picture by OpenCV's bilinear resizing, where it is above zero.

    Args:
        boxes: (Q, 4) cxcywh.
        logits: (Q, C).
        size: (height, width) of the picture.
        most: detections.
        class_count: names of classes.
        masks: (Q, h, w) logits, the third output of a file with masks.

    Returns:
        Rows (n, 6), and masks (n, height, width) bool, none without ``masks``.
    """
    small = np.exp(-np.abs(logits))
    scores = np.where(logits >= 0, 1, small) / (1 + small)
    rows = [
        (score, query, column)
        for (query, column), score in np.ndenumerate(scores)
        if score > THRESHOLD
    ]
    rows = sorted(rows, key=lambda row: -row[0])[:most]
    height, width = size
    found, found_masks = [], []
    for score, query, column in rows:
        if column < class_count:
            x, y, w, h = boxes[query]
            corners = [(x - w / 2) * width, (y - h / 2) * height]
            corners += [(x + w / 2) * width, (y + h / 2) * height]
            found.append((*np.clip(corners, 0, [width, height] * 2), score, column))
            if masks is not None:
                found_masks.append(cv2.resize(masks[query], (width, height)) > 0)
    return np.array(found).reshape(-1, 6), np.array(found_masks)


def sure_ones(project):
    for found in project.detect(IMAGES):
        yield found[found.scores > THRESHOLD].numpy()


def expected_rows(project):
    for sure in sure_ones(project):
        yield np.column_stack((sure.bboxes, sure.scores, sure.labels))


def test_the_server_reads_what_predict_finds(project):
    path, _ = project.exported(batch=None, notes='of mine')
    boxes, logits = raw_outputs(path)
    for index, expected in enumerate(expected_rows(project)):
        size = IMAGES[index].shape[:2]
        rows, _ = read_as_server(boxes[index], logits[index], size, 10, len(CLASSES))
        assert len(expected) >= 3
        assert rows.shape == expected.shape
        assert np.abs(rows - expected).max() < 1e-2


@pytest.mark.long
def test_the_server_reads_the_masks_of_predict(masks_project):
    path, _ = masks_project.exported(batch=None)
    boxes, logits, masks = raw_outputs(path)
    expected = zip(expected_rows(masks_project), sure_ones(masks_project), strict=True)
    for index, (wanted, sure) in enumerate(expected):
        size = IMAGES[index].shape[:2]
        rows, found = read_as_server(
            boxes[index], logits[index], size, 10, len(CLASSES), masks[index]
        )
        assert len(wanted) >= 3
        assert rows.shape == wanted.shape
        assert np.abs(rows - wanted).max() < 1e-2
        assert found.shape == sure.masks.shape == (len(wanted), *size)
        assert 0.02 < found.mean() < 0.98
        # Where a logit is nearly zero, rounding decides.
        assert (found != sure.masks).mean() < 1e-3


@pytest.mark.long
def test_the_readers_of_the_docs_read_what_predict_finds(
    project, tmp_path, monkeypatch, capsys
):
    path, _ = project.exported(layout='detections')
    shutil.copy(path, tmp_path / 'best.onnx')
    Image.fromarray(IMAGES[0]).save(tmp_path / 'street.jpg')
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / 'docs' / 'deployment.md').read_text()
    ten_lines, runtime, *_ = re.findall('```python\n(.*?)```', page, re.DOTALL)
    pixels = np.asarray(Image.open('street.jpg'))[..., ::-1]
    (wanted,) = project.detect([pixels])
    capsys.readouterr()
    exec(ten_lines, {})
    lines = capsys.readouterr().out.splitlines()
    sure = wanted[wanted.scores > 0.5]
    assert len(lines) == len(sure) >= 1
    for line, each in zip(lines, sure.numpy(), strict=True):
        name, *numbers = re.sub(r'[\[\]]', ' ', line).split()
        assert name == CLASSES[each.labels[0]]
        expected = [each.scores[0], *each.bboxes[0]]
        assert np.array(numbers, float) == pytest.approx(expected, abs=1e-2)
    scope = dict(image=pixels)
    exec(runtime, scope)
    assert np.array_equal(scope['found'].labels, wanted.labels)
    assert np.allclose(scope['found'].boxes, wanted.bboxes, atol=1e-2)


@needs_official
@pytest.mark.slow
def test_the_official_decoder_reads_what_predict_finds(project, tmp_path):
    path, _ = project.exported(batch=None, notes='of mine')
    boxes, logits = raw_outputs(path)
    sizes = [image.shape[1::-1] for image in IMAGES]
    np.savez(tmp_path / 'raw.npz', boxes=boxes, logits=logits, sizes=sizes)
    code = (
        'import sys, json, numpy as np\n'
        'from rfdetr.export._runtime.decode import decode_detections\n'
        'raw = np.load(sys.argv[1])\n'
        'rows = []\n'
        "for one in zip(raw['boxes'], raw['logits'], raw['sizes'].tolist()):\n"
        f'    found = decode_detections(*one, threshold={THRESHOLD}, num_select=10)\n'
        '    rows.append(np.column_stack(\n'
        '        (found.xyxy, found.confidence, found.class_id)).tolist())\n'
        'print(json.dumps(rows))\n'
    )
    done = run([PYTHON, '-W', 'ignore', '-c', code, tmp_path / 'raw.npz'])
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    for rows, expected in zip(read, expected_rows(project), strict=True):
        assert len(rows) == len(expected) >= 3
        assert np.abs(np.array(rows) - expected).max() < 1e-2
