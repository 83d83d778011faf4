"""What an exported file is given, and what is made of its outputs."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from rfdetr_runtime import Metadata, ModelFileError, find_objects, open_model, prepare
from rfdetr_runtime.postprocess import best_pairs

from mmdet_rfdetr.data.transforms import RFDETRResize
from mmdet_rfdetr.models.detections import best_detections, box_scales, top_scores
from tests.fixtures import REPOSITORY

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
METADATA = Metadata(
    names=('cat', "dog's", 'Ωmega'),
    input_size=(96, 128),
    mean=MEAN,
    std=STD,
    background=3,
    max_detections=20,
    stride=32,
    config='some.py',
    checkpoint='ab12',
    package='mmdet_rfdetr 0.1.0',
    notes='a note',
)


def draw(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def as_evaluation(image, size, antialias):
    resized = RFDETRResize(sizes=[size], antialias=antialias).transform(
        dict(img=image, img_shape=image.shape[:2])
    )['img']
    preprocess = DetDataPreprocessor(mean=MEAN, std=STD, bgr_to_rgb=True)
    inputs = [torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))]
    if not antialias:  # mmdet's takes levels of any type, and turns whole ones alone
        flat = inputs[0].flip(0)
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
        return ((flat - mean) / std)[None].numpy()
    batch = dict(inputs=inputs, data_samples=[DetDataSample(metainfo={})])
    batch['data_samples'][0].set_metainfo(dict(img_shape=size))
    return preprocess(batch)['inputs'].numpy()


@pytest.mark.parametrize('shape', [(77, 201), (500, 333), (96, 128)])
def test_input_is_that_of_evaluation_to_the_bit(shape):
    image = draw(shape)
    expected = as_evaluation(image, METADATA.input_size, antialias=True)
    assert np.array_equal(prepare([image], METADATA), expected)


@pytest.mark.parametrize('shape', [(77, 201), (500, 333)])
def test_sampling_is_that_of_pytorch(shape):
    image = draw(shape)
    expected = as_evaluation(image, METADATA.input_size, antialias=False)
    found = prepare([image], METADATA, 'sample')
    assert np.abs(found - expected).max() < 5e-6
    assert np.abs(found - prepare([image], METADATA)).max() > 0.1


def test_pixels_go_in_as_they_are():
    image = draw((50, 60))
    pixels = prepare([image, image], METADATA.replace(layout='detections'))
    assert pixels.dtype == np.uint8 and pixels.shape == (2, 96, 128, 3)
    levels = prepare([image], METADATA.replace(layout='deepstream'))
    assert np.array_equal(levels[0].transpose(1, 2, 0), pixels[0])
    normalised = prepare([image], METADATA)
    restored = normalised[0].transpose(1, 2, 0) * STD + MEAN
    assert np.abs(restored - pixels[0]).max() < 1e-3


def outputs_of(batch=2, queries=30, classes=3, masks=False):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(batch, queries, classes, generator=generator)
    logits[:, 5] = logits[:, 9] = 1.25  # ties
    boxes = torch.rand(batch, queries, 4, generator=generator)
    outputs = dict(dets=boxes, labels=torch.nn.functional.pad(logits, (0, 1), value=9))
    if masks:
        outputs['masks'] = torch.randn(batch, queries, 24, 32, generator=generator)
    return {name: value.numpy() for name, value in outputs.items()}


def test_detections_are_those_of_the_model():
    outputs, sizes = outputs_of(), [(70, 90), (333, 50)]
    metas = [
        dict(img_shape=(96, 128), scale_factor=(128 / width, 96 / height))
        for height, width in sizes
    ]
    scales = box_scales(metas, torch.device('cpu'), rescale=True)
    logits = torch.from_numpy(outputs['labels'][..., :3])
    boxes = torch.from_numpy(outputs['dets'])
    expected = best_detections(logits, boxes, scales, count=20)
    for image, found in enumerate(find_objects(outputs, METADATA, sizes)):
        assert np.array_equal(found.labels, expected.labels[image])
        assert np.allclose(found.scores, expected.scores[image], atol=1e-6)
        assert np.allclose(found.boxes, expected.bboxes[image], atol=1e-3)
        assert found.masks is None


def test_masks_are_those_of_the_model():
    outputs = outputs_of(masks=True)
    sizes = [(70, 90), (333, 50)]
    few = find_objects(outputs, METADATA, sizes, threshold=0.8)
    every = find_objects(outputs, METADATA, sizes, full_masks=False)
    for image, (found, logits) in enumerate(zip(few, every, strict=True)):
        assert 0 < len(found) < len(logits)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(logits.masks[None]), size=sizes[image], mode='bilinear'
        )[0, : len(found)]
        sure = (expected.abs() > 1e-5).numpy()
        assert found.masks.dtype == bool
        assert np.array_equal(found.masks[sure], (expected > 0).numpy()[sure])


def test_equal_scores_are_taken_as_the_model_takes_them():
    scores = np.random.default_rng(0).integers(0, 8, 200).astype(np.float32) / 8
    for count in (1, 17, 200, 300):
        expected = top_scores(torch.from_numpy(scores)[None], count)[1][0]
        assert np.array_equal(best_pairs(scores, count), expected)


@pytest.mark.parametrize('batch', [None, 3])
def test_metadata_survive_as_text(batch):
    metadata = METADATA.replace(batch=batch, background=None, layout='detections')
    strings = metadata.to_strings()
    assert all(isinstance(value, str) for value in strings.values())
    assert Metadata.from_strings(strings, 'x.onnx') == metadata
    # What readers of Ultralytics' files evaluate.
    assert eval(strings['names']) == dict(enumerate(METADATA.names))
    assert eval(strings['imgsz']) == [96, 128]
    assert {'stride', 'task', 'batch', 'channels', 'end2end'} <= set(strings)


@pytest.mark.parametrize(
    'damage', [dict(mean='none'), dict(batch='many'), dict(input_size='7')]
)
def test_damaged_metadata_are_refused(damage):
    with pytest.raises(ModelFileError, match=r'x\.onnx'):
        Metadata.from_strings({**METADATA.to_strings(), **damage}, 'x.onnx')
    with pytest.raises(ModelFileError, match='class_names'):
        Metadata.from_strings(dict(batch='1'), 'x.onnx')


@pytest.mark.parametrize('name', ['a.onnx', 'a.xml', 'a.pt2', 'a.engine', 'a.pth'])
def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ModelFileError, match='does not exist|ends in none'):
        open_model(path)
    path.write_bytes(b'no model')
    with pytest.raises(ModelFileError) as error:
        open_model(path)
    assert '\n' not in str(error.value)


def test_neither_pytorch_nor_mmdetection_is_imported():
    code = (
        'import sys\nfrom rfdetr_runtime import *\n'
        "print({name.split('.')[0] for name in sys.modules}"
        " & {'torch', 'mmdet', 'mmengine', 'mmcv', 'mmdet_rfdetr', 'onnxruntime'})"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=REPOSITORY / 'runtime',
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == 'set()'


CLOSE_AND_SIGNAL = """
import gc, os, signal, subprocess, sys
import numpy as np
from rfdetr_runtime.backends import import_openvino, open_model

openvino = import_openvino()
ops, (path, strings) = openvino.opset11, eval(sys.argv[1])
x = ops.parameter([1, 8], np.float32, name='input')
model = openvino.Model([ops.relu(x)], [x], 'm')
for key, value in strings.items():
    model.set_rt_info(value, ['rfdetr', key])
openvino.save_model(model, path)
first, second = open_model(path), open_model(path)
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *args: print('heard'))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_process_that_closed_openvino_files_still_hears_signals(tmp_path):
    """Its CPU plugin moves the stack of signal handlers, and unmaps it when freed."""
    strings = replace(METADATA, input_size=(1, 8)).to_strings()
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            CLOSE_AND_SIGNAL,
            repr((str(tmp_path / 'm.xml'), strings)),
        ],
        cwd=REPOSITORY / 'runtime',
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, 'heard\n'), done.stderr
