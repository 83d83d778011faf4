"""MMDetection's inference functions, on a trained project of toy size."""

import json

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmdet_rfdetr.checkpoints import to_official
from mmdet_rfdetr.runtime import inferring
from tests.factory import USER_CLASSES as CLASSES


@pytest.fixture
def paths(toy_project, toy_checkpoint):
    return str(toy_project / 'mine.py'), str(toy_checkpoint)


@pytest.fixture
def picture(toy_project):
    return str(toy_project / 'pictures' / '0.png')


@pytest.fixture
def inferencer(paths):
    return DetInferencer(*paths, device='cpu', show_progress=False)


def test_init_detector_takes_config_and_checkpoint(paths, picture):
    model = init_detector(*paths, device='cpu')
    assert tuple(model.dataset_meta['classes']) == CLASSES
    assert not model.training

    result = inference_detector(model, picture)
    boxes = result.pred_instances.bboxes
    assert boxes.shape == (10, 4)
    # Boxes are in pixels of the picture as it lies on disk, 80 x 60.
    assert result.ori_shape == (60, 80)
    assert boxes[:, 0::2].max() <= 80
    assert boxes[:, 1::2].max() <= 60
    assert set(result.pred_instances.labels.tolist()) <= {0, 1}


def test_inference_detector_takes_paths_arrays_and_lists(paths, picture, toy_project):
    model = init_detector(*paths, device='cpu')
    array = np.asarray(Image.open(picture))[..., ::-1]  # BGR, as mmcv reads it
    second = str(toy_project / 'pictures' / '1.png')
    # An array comes last: mmdet then changes the model's config to loading from arrays.
    of_path = inference_detector(model, picture)
    of_list = inference_detector(model, [picture, second])
    of_array = inference_detector(model, array)
    for result in (of_array, of_list[0]):
        for key in ('bboxes', 'scores', 'labels'):
            expected = of_path.pred_instances[key]
            assert result.pred_instances[key].equal(expected), key
    assert [result.ori_shape for result in of_list] == [(60, 80), (80, 60)]


def test_a_loader_of_mmdet_takes_grey_arrays_and_then_files(paths, picture, tmp_path):
    cfg = Config.fromfile(paths[0])
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='LoadImageFromFile')
    grey = np.asarray(Image.open(picture).convert('L'))
    path = str(tmp_path / 'grey.png')
    Image.fromarray(grey).save(path)
    model = init_detector(cfg, paths[1], device='cpu')
    found = [inference_detector(model, image) for image in (path, grey, path)]
    scores = [each.pred_instances.scores for each in found]
    inferencer = DetInferencer(cfg, paths[1], device='cpu', show_progress=False)
    for image in (grey, path):
        (result,) = inferencer(image, return_datasamples=True)['predictions']
        scores.append(result.pred_instances.scores)
    assert all(each.equal(scores[0]) for each in scores)


@pytest.mark.parametrize('kind', ['path', 'array', 'list', 'folder'])
def test_inferencer_takes_any_input(inferencer, picture, toy_project, kind):
    array = np.asarray(Image.open(picture))[..., ::-1]
    second = str(toy_project / 'pictures' / '1.png')
    inputs, count = {
        'path': (picture, 1),
        'array': (array, 1),
        'list': ([picture, second, array], 3),
        'folder': (str(toy_project / 'copied'), 4),
    }[kind]
    if kind == 'folder':
        folder = toy_project / 'copied'
        folder.mkdir(exist_ok=True)
        for path in (toy_project / 'pictures').glob('*.png'):
            (folder / path.name).write_bytes(path.read_bytes())
    predictions = inferencer(inputs, batch_size=2, no_save_vis=True)['predictions']
    assert len(predictions) == count
    assert [len(each['scores']) for each in predictions] == [10] * count
    expected = inferencer(picture, no_save_vis=True)['predictions'][0]
    # A folder's order is the file system's; batches of one and two differ in rounding.
    assert any(
        np.allclose(each['bboxes'], expected['bboxes'], atol=1e-3)
        for each in (predictions if kind == 'folder' else predictions[:1])
    )


@pytest.fixture
def official_coco(toy_project, tmp_path):
    """A config with the 91 outputs of an official COCO file, and such a file."""
    cfg = Config.fromfile(toy_project / 'mine.py')
    cfg.model.bbox_head.num_classes = 91
    del cfg.test_dataloader.dataset.metainfo  # the data set is COCO
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        model.bbox_head.fc_cls.bias.fill_(-20)[85] = 20
    path = tmp_path / 'official.pth'
    torch.save({'model': dict(to_official(model.state_dict()))}, path)
    return cfg, str(path)


def test_category_ids_as_labels_have_their_names(
    official_coco, toy_project, picture, tmp_path, monkeypatch
):
    monkeypatch.chdir(toy_project)
    cfg, path = official_coco
    model = init_detector(cfg.copy(), path, device='cpu')
    labels = inference_detector(model, picture).pred_instances.labels
    assert {model.dataset_meta['classes'][label] for label in labels} == {'clock'}
    inferencer = DetInferencer(cfg.copy(), path, device='cpu', show_progress=False)
    inferencer(picture, out_dir=str(tmp_path), pred_score_thr=0.0)
    assert (tmp_path / 'vis' / '0.png').exists()


@pytest.mark.parametrize('outputs', [1, len(CLASSES), len(CLASSES) + 1])
@pytest.mark.parametrize('infer', [inference_detector, None])
def test_other_outputs_than_the_checkpoint_has_names_are_a_warning(
    paths, picture, monkeypatch, outputs, infer
):
    lines = []
    monkeypatch.setattr(inferring, 'print_log', lambda line, **_: lines.append(line))
    cfg = Config.fromfile(paths[0])
    cfg.model.bbox_head.num_classes = outputs
    if infer:
        infer(init_detector(cfg, paths[1], device='cpu'), picture)
    else:
        DetInferencer(cfg, paths[1], device='cpu', show_progress=False)
    is_equal = outputs == len(CLASSES)
    assert [f'num_classes is {outputs}' in line for line in lines] == [True] * (
        not is_equal
    )


def test_inferencer_draws_and_writes(inferencer, picture, tmp_path):
    inferencer(picture, out_dir=str(tmp_path), no_save_pred=False, pred_score_thr=0.0)
    with (
        Image.open(tmp_path / 'vis' / '0.png') as drawn,
        Image.open(picture) as original,
    ):
        assert drawn.size == original.size
        assert drawn.tobytes() != original.convert('RGB').tobytes()
    written = json.loads((tmp_path / 'preds' / '0.json').read_text())
    assert len(written['bboxes']) == 10
