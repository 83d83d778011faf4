"""Keypoint Preview compared with the official package, stage by stage."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from mmdet_rfdetr.keypoints.keypoint_head import SCORE_MODES
from mmdet_rfdetr.matching import Stages
from tests import parity
from tests.fixtures import load_pair, needs_fixtures, rule, strided
from tests.test_models.test_fixture_parity import (
    check_train_stages,
    evaluate,
    test_eval_stages,  # noqa: F401
)

from .case import tiny_config

pytestmark = needs_fixtures


@pytest.fixture(scope='module')
def evaluated():
    return evaluate('keypoint')


@pytest.mark.long
def test_train_stages():
    check_train_stages('keypoint')


@pytest.fixture(scope='module')
def small():
    return load_pair('keypoint/small')


@pytest.mark.parametrize('size', [0, 1])
def test_detections(evaluated, size):
    """The same detections with fused scores, here sorted by them."""
    _, model, config, stages = evaluated
    arrays, description = load_pair('keypoint/detections')
    inputs = config['eval_input']
    samples = parity.make_samples(inputs, inputs[0])
    originals = description['target_sizes'][size]
    for sample, original in zip(samples, originals, strict=True):
        parity.set_original_size(sample, original)
    names = 'pred_logits', 'pred_boxes', 'pred_keypoints'
    logits, boxes, points = ([torch.from_numpy(stages[name])] for name in names)
    results = model.bbox_head.predict(
        Stages(logits, boxes).with_task('keypoint_head', points), samples
    )
    for image, found in enumerate(results):
        expected = {
            name: arrays[f'size{size}_image{image}_{name}']
            for name in ('scores', 'labels', 'boxes', 'keypoints')
        }
        compare_detections(found, expected, originals[image])


def compare_detections(found, expected, size):
    """Detections of an image with those of the official package, in any order."""
    assert found.scores.diff().max() <= 0
    ours, theirs = places(found.labels, found.bboxes), places(*label_and_box(expected))
    points = np.dstack((found.keypoints, found.keypoint_scores))
    margin = 2e-5 * max(size) + 1e-3
    for mine, name, bound in (
        (found.labels, 'labels', 0),
        (found.scores, 'scores', 1e-5),
        (found.bboxes, 'boxes', margin),
        (points, 'keypoints', margin),
    ):
        in_their_order = np.empty_like(mine)
        in_their_order[theirs] = np.asarray(mine)[ours]
        wanted = expected[name]  # a part of it, where it is large
        stride = -(-in_their_order.size // wanted.size)
        np.testing.assert_allclose(
            strided(in_their_order, stride), wanted, rtol=1e-5, atol=bound
        )
    return ours, theirs


def label_and_box(expected):
    return expected['labels'], expected['boxes']


def places(labels, boxes):
    """An order of detections that does not depend on their scores."""
    return np.lexsort((boxes[:, 0], boxes[:, 1], labels))


@pytest.mark.parametrize('mode', SCORE_MODES)
def test_fused_scores_and_covariances(small, mode):
    """On rule-made outputs with ties, three classes and labels without points."""
    arrays, description = small
    seed, schema = description['case_seed'], description['num_keypoints_per_class']
    noise = rule().noise
    logits = np.round(noise('kp/logits', seed, (2, 40, 5)) * 16) / 16 - 1
    boxes = rule().uniform('kp/boxes', seed, (2, 40, 4)).astype(np.float64)
    boxes = np.concatenate((boxes[..., :2] * 1.2 - 0.1, 0.02 + 0.6 * boxes[..., 2:]), 2)
    points = noise('kp/points', seed, (2, 40, 12, 8)).astype(np.float32)
    points[:, ::7, :, 5] = 0
    config = tiny_config(schema, 5)
    config['keypoint_head']['score_mode'] = mode
    config['test_cfg'].update(max_per_img=50)
    samples = parity.make_samples([(96, 96)] * 2, (96, 96))
    sizes = description['post_target_sizes']
    for sample, size in zip(samples, sizes, strict=True):
        parity.set_original_size(sample, size)
    stages = Stages(
        *([torch.from_numpy(x.astype(np.float32))] for x in (logits, boxes))
    )
    results = MODELS.build(config).bbox_head.predict_by_feat(
        stages.with_task('keypoint_head', [torch.from_numpy(points)]),
        batch_img_metas=[sample.metainfo for sample in samples],
    )
    for image, found in enumerate(results):
        prefix = f'post_alpha0.2_image{image}_'
        names = ('scores', 'labels', 'boxes', 'keypoints')
        expected = {name: arrays[prefix + name] for name in names}
        if mode == 'class':
            expected['scores'] = arrays[f'post_alpha0.0_image{image}_scores']
        ours, theirs = compare_detections(found, expected, sizes[image])
        # The official covariance lacks the area of the box.
        width, height = sizes[image][1], sizes[image][0]
        sides = (found.bboxes[:, 2:] - found.bboxes[:, :2]).numpy()
        areas = sides.prod(1) / (width * height)
        covariances = arrays[f'post_image{image}_pixel_covariance']
        np.testing.assert_allclose(
            found.keypoint_covariances.numpy()[ours],
            covariances[theirs] * areas[ours, None, None, None],
            rtol=1e-3,
            atol=1e-2,
        )
