"""A config and a checkpoint detect as MMDetection's functions do, to the bit."""

import copy
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from rfdetr_predict.__main__ import main as predict

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.runtime import CheckpointModel, load_detector
from tests.factory import picture
from tests.fixtures import REPOSITORY
from tests.interpreter import run
from tests.test_segmentation.project import shrunk_config, write_pictures


@pytest.fixture(scope='module')
def paths(toy_project):
    return sorted((toy_project / 'pictures').glob('*.png'))


@pytest.fixture(scope='module')
def config(toy_project):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(toy_project)
        return Config.fromfile('mine.py')


@pytest.fixture(scope='module')
def reference(config, toy_checkpoint, paths):
    model = init_detector(copy.deepcopy(config), str(toy_checkpoint), device='cpu')
    return [inference_detector(model, str(path)).pred_instances for path in paths]


def test_checkpoints_give_what_inference_detector_gives(
    config, toy_checkpoint, paths, reference
):
    detect = load_detector(
        copy.deepcopy(config), str(toy_checkpoint), threshold=0, device='cpu'
    )
    assert detect.names == ('square', 'bar')
    for expected, found in zip(reference, detect(paths), strict=True):
        assert len(found) == len(expected) == 10
        assert np.array_equal(found.boxes, expected.bboxes)
        assert np.array_equal(found.scores, expected.scores)
        assert np.array_equal(found.labels, expected.labels)


def test_a_threshold_leaves_out_what_is_below(config, toy_checkpoint, paths, reference):
    bound = float(reference[0].scores[4])
    detect = load_detector(copy.deepcopy(config), str(toy_checkpoint), threshold=bound)
    found = detect(paths[0])
    assert np.array_equal(
        found.scores, reference[0].scores[reference[0].scores > bound]
    )
    assert 0 < len(found) < 10


def test_masks_are_made_of_what_passes_the_threshold_alone(tmp_path, monkeypatch):
    from rfdetr_runtime import Detector

    write_pictures(tmp_path)
    config, path = shrunk_config(tmp_path), str(tmp_path / 'drawn.pth')
    meta = dict(dataset_meta=config.test_dataloader.dataset.metainfo)
    drawn = MODELS.build(config.model).state_dict()
    torch.save(dict(state_dict=drawn, meta=meta), path)
    model = CheckpointModel(config, path, 'cpu')
    head = model.model.bbox_head
    (masks,) = head.task_heads.values()
    made, add_results = [], masks.add_results
    monkeypatch.setattr(
        masks,
        'add_results',
        lambda result, *args, **kwargs: (
            made.append(len(result)) or add_results(result, *args, **kwargs)
        ),
    )
    every = Detector(model, threshold=0)(tmp_path / '0.png')
    bound = float(every.scores[4])
    few = Detector(model, threshold=bound)(tmp_path / '0.png')
    assert made == [len(every), len(few)] and 0 < len(few) <= 4 < len(every)
    for name in ('boxes', 'scores', 'labels', 'masks'):
        assert np.array_equal(getattr(few, name), getattr(every, name)[: len(few)])
    assert head.test_cfg.get('score_thr') is None


def test_several_at_once_differ_in_the_order_of_additions_alone(
    config, toy_checkpoint, paths, reference
):
    detect = load_detector(
        copy.deepcopy(config), str(toy_checkpoint), threshold=0, batch=3, device='cpu'
    )
    for expected, found in zip(reference, detect(paths), strict=True):
        assert np.allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
        assert np.array_equal(found.labels, expected.labels)
        assert np.allclose(found.boxes, expected.bboxes, rtol=0, atol=1e-4)


def test_tiles_that_fit_are_the_plain_picture(config, toy_checkpoint, paths, reference):
    settings = dict(threshold=0, tile=80, whole=True)
    detect = load_detector(copy.deepcopy(config), str(toy_checkpoint), **settings)
    for expected, found in zip(reference, detect(paths), strict=True):
        assert np.array_equal(found.boxes, expected.bboxes)
        assert np.array_equal(found.scores, expected.scores)


def shipped_like(config):
    """The toy's config with the loader and the resizing of the shipped ones."""
    changed = copy.deepcopy(config)
    load, resize, annotations, pack = changed.test_dataloader.dataset.pipeline
    load.type = 'RFDETRLoadImage'
    changed.test_dataloader.dataset.pipeline = [
        load,
        dict(type='RFDETRResize', image_size=64),
        annotations,
        pack,
    ]
    return changed


def test_resizing_and_shape_can_be_chosen(config, toy_checkpoint, tmp_path):
    picture(150, 200).save(tmp_path / 'large.png')
    path, config = str(tmp_path / 'large.png'), shipped_like(config)

    def scores(model):
        from rfdetr_runtime import Detector

        return Detector(model, threshold=0)(path).scores

    evaluation, official, wide = (
        CheckpointModel(config, str(toy_checkpoint), 'cpu', **options)
        for options in (
            {},
            dict(resize='official'),
            dict(shape=(64, 128)),
        )
    )
    prepared = official.prepare(np.zeros((150, 200, 3), np.uint8))['inputs']
    assert prepared.dtype.is_floating_point and prepared.shape == (3, 64, 64)
    prepared = wide.prepare(np.zeros((150, 200, 3), np.uint8))['inputs']
    assert prepared.shape == (3, 64, 128)
    assert not np.array_equal(scores(evaluation), scores(official))
    assert not np.array_equal(scores(evaluation), scores(wide))
    # As with a test pipeline that says so.
    config.test_dataloader.dataset.pipeline[1].antialias = False
    model = init_detector(config, str(toy_checkpoint), device='cpu')
    expected = inference_detector(model, path).pred_instances.scores
    assert np.array_equal(scores(official), expected)
    with pytest.raises(SettingError, match=r'\(60, 64\).* multiples of 32'):
        CheckpointModel(config, str(toy_checkpoint), 'cpu', shape=(60, 64))


def test_a_pipeline_without_our_resizing_cannot_be_changed(config, toy_checkpoint):
    with pytest.raises(SettingError, match='one RFDETRResize, and this one has 0'):
        CheckpointModel(
            copy.deepcopy(config), str(toy_checkpoint), 'cpu', resize='official'
        )


@pytest.mark.long
def test_the_command_takes_a_config_and_a_checkpoint(
    toy_project, toy_checkpoint, reference, tmp_path
):
    tool = ['-m', 'mmdet_rfdetr', 'predict.py', 'mine.py', toy_checkpoint, 'pictures']
    command = [sys.executable, *tool, '--stdout', '--threshold', '0', '--quiet']
    done = run(command, cwd=toy_project)
    assert done.returncode == 0, done.stderr
    rows = list(map(json.loads, done.stdout.splitlines()))
    assert [row['image'] for row in rows] == [f'{n}.png' for n in range(4)]
    for expected, row in zip(reference, rows, strict=True):
        scores = [each['score'] for each in row['detections']]
        assert np.allclose(scores, expected.scores, atol=1e-6)


def test_the_command_says_what_comes_after_a_config(capsys, monkeypatch):
    tool = str(REPOSITORY / 'tools' / 'predict.py')
    for arguments, message in (
        ([tool, 'only.pth'], 'after a config come its checkpoint'),
        (['some.py', 'no.pth', 'x.jpg'], "config 'some.py' does not exist"),
        (['some.onnx', 'x.jpg', '--cfg-options', 'a=1'], 'are for a config'),
    ):
        monkeypatch.setattr(sys, 'argv', ['predict.py', *arguments])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(tool, run_name='__main__')
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_an_unknown_file_is_told_in_a_sentence(capsys, tmp_path):
    picture(8, 8).save(tmp_path / 'a.png')
    assert predict(['some.pth', str(tmp_path)]) == 1
    assert 'some.pth is no exported model' in capsys.readouterr().err
