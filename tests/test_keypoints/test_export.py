"""Exported pose models: raw numbers, points of detections, refusals and the check."""

import copy

import numpy as np
import pytest
import torch
from rfdetr_runtime import find_objects, open_model, prepare
from rfdetr_runtime.keypoints import decode_keypoints

from mmdet_rfdetr.deploy.agreement import TOLERANCES, Agreement
from mmdet_rfdetr.errors import ExplainedError, SettingError
from mmdet_rfdetr.keypoints.keypoint_head import RFDETRKeypointHead
from mmdet_rfdetr.runtime import CheckpointModel
from tests import parity
from tests.factory import CLASSES, SIDE
from tests.test_deploy.project import Project

from .case import tiny_config

COUNTS = [3, 0, 2]
POSE = {
    'keypoint_head': dict(type='RFDETRKeypointHead', num_keypoints=COUNTS),
    'decoder.num_layers': 1,
}
SIZES = (40, 50), (64, 48)
NAMES = 'keypoints', 'keypoint_scores', 'keypoint_covariances'


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pose')
    return PoseProject(folder, folder, **POSE)


class PoseProject(Project):
    """Its points are spread, so that none is like another."""

    def look_for_what_is_found(self):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for value in self.model.keypoint_head.parameters():
                noise = torch.randn(value.shape, generator=generator)
                value.add_(0.1 * noise if value.ndim > 1 else 0.02 * noise)
        super().look_for_what_is_found()


@pytest.fixture(scope='module')
def images():
    random = np.random.RandomState(0)
    return [random.randint(0, 256, (*size, 3), np.uint8) for size in SIZES]


def found_in(path, images):
    file = open_model(path)
    outputs = file(prepare(images, file.metadata))
    return outputs, find_objects(outputs, file.metadata, SIZES)


@pytest.mark.long
@pytest.mark.parametrize('to', ['onnx', 'openvino'])
def test_the_official_layout_has_the_raw_numbers(project, images, to):
    path, rows = project.exported(to=to, batch=None, layout='official')
    outputs, _ = found_in(path, images)
    with torch.no_grad():
        inputs = torch.from_numpy(prepare(images, project.metadata))
        expected = project.model(inputs, mode='tensor')['pred_keypoints'].numpy()
    queries = project.model.num_queries
    assert outputs['keypoints'].shape == (2, queries, 3 * max(COUNTS), 8)
    np.testing.assert_allclose(outputs['keypoints'], expected, atol=1e-4)
    assert 0 < max(row.points for row in rows.values()) <= 1e-4
    metadata = open_model(path).metadata
    assert metadata.task == 'pose'
    assert metadata.keypoints['counts'] == COUNTS


@pytest.mark.long
@pytest.mark.parametrize(
    ('to', 'layout'),
    [('onnx', 'official'), ('onnx', 'detections'), ('openvino', 'detections')],
)
def test_files_find_the_points_of_predict(project, images, to, layout):
    path, _ = project.exported(to=to, batch=None, layout=layout)
    _, found = found_in(path, images)
    for each, wanted in zip(found, project.detect(images), strict=True):
        np.testing.assert_allclose(each.scores, wanted.scores, atol=2e-5)
        assert (np.diff(each.scores) <= 0).all()
        same = each.labels == wanted.labels.numpy()
        assert same.mean() > 0.9  # but for near ties
        for name in NAMES:
            ours, theirs = getattr(each, name)[same], wanted[name].numpy()[same]
            scale = np.nanmax(np.abs(theirs))
            np.testing.assert_allclose(
                np.nan_to_num(ours), np.nan_to_num(theirs), atol=1e-3 * scale
            )


@pytest.mark.parametrize('mode', ['class', 'fused'])
def test_a_graph_and_the_reader_make_the_same_of_raw_numbers(project, mode):
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(1, 9, 9, 8, generator=generator)
    corners = torch.rand(1, 9, 2, 2, generator=generator).sort(2).values.flatten(2)
    labels = torch.arange(9)[None] % 4  # the last has no points at all
    scores = torch.rand(1, 9, generator=generator).sort(descending=True).values
    inputs = dict(boxes=corners, scores=scores, labels=labels, keypoints=raw)
    head = copy.copy(project.model.keypoint_head)
    head.score_mode = mode
    made = head.finish(inputs)
    assert head.exported_results == NAMES
    scheme = head.describe({})['keypoints']
    expected = decode_keypoints(
        *(x[0].numpy() for x in (raw, corners, labels, scores)), scheme
    )
    order = np.argsort(-expected['scores'], kind='stable')
    assert (mode == 'class') is (order.tolist() == list(range(9)))
    np.testing.assert_array_equal(made['labels'][0], labels[0].numpy()[order])
    for name, values in expected.items():
        np.testing.assert_allclose(made[name][0], values[order], rtol=2e-5, atol=1e-6)


def test_seventeen_points_without_names_are_those_of_coco():
    """As in the official weights, which hold no names of points."""
    head = parity.rule_model(tiny_config([17])).keypoint_head
    known = head.describe(dict(classes=('person',)))['keypoints']
    assert known['names'][0] == 'nose' and known['names'][5:7] == [
        'left_shoulder',
        'right_shoulder',
    ]
    assert len(known['names']) == 17 and len(known['skeleton']) == 19
    assert [5, 6] in known['skeleton']


@pytest.mark.parametrize('layout', ['mmdeploy', 'deepstream'])
def test_layouts_without_a_place_for_points_are_refused(project, layout):
    with pytest.raises(SettingError, match='keypoints.*detections'):
        project.export('refused', layout=layout)
    assert not (project.folder / 'refused.onnx').exists()


@pytest.mark.long
@pytest.mark.parametrize('layout', ['official', 'detections'])
def test_a_file_with_other_points_is_removed(project, layout, monkeypatch):
    """The file is as before, and the model now moves a point by a hundredth."""
    project.exported(to='onnx', batch=None, layout=layout)
    outputs = RFDETRKeypointHead.outputs

    def move(head, stages, stage):
        shift = torch.zeros(len(COUNTS) * max(COUNTS), 8)
        shift[0, 0] = 0.01
        made = outputs(head, stages, stage)
        return dict(pred_keypoints=made['pred_keypoints'] + shift)

    monkeypatch.setattr(RFDETRKeypointHead, 'outputs', move)
    with pytest.raises(ExplainedError, match='not the model'):
        project.export('moved', layout=layout, batch=None)
    assert not (project.folder / 'moved.onnx').exists()


def test_points_decide_whether_a_file_agrees():
    one = Agreement(points=2e-4)
    assert not one.within(TOLERANCES['fp32'])
    assert one.within(TOLERANCES['fp16'])


def test_a_checkpoint_gives_the_points_of_predict(project, images):
    with pytest.warns(UserWarning, match='class names'):  # it holds weights alone
        model = CheckpointModel(project.config(), project.checkpoint, device='cpu')
    assert model.scheme['counts'] == COUNTS
    inputs = [model.prepare(image) for image in images]
    (first, _), (wanted, _) = (
        model.detect(inputs, SIZES, 0, None),
        project.detect(images),
    )
    for name in NAMES:
        np.testing.assert_allclose(getattr(first, name), wanted[name], atol=1e-3)
    assert len(CLASSES) == len(COUNTS) and SIDE == 32
