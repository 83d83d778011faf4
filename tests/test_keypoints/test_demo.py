"""The pose demo: what its config loads, learns from, draws and evaluates."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_rfdetr.demo.figures import POINTS, draw_figures
from tests.test_keypoints.learning import DETECTION, POSE, demo_config


@pytest.fixture(scope='module')
def cfg(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pose')
    cfg = demo_config(POSE, folder)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(num_train=4, num_val=4)
    init_default_scope('mmdet')
    DATASETS.build(cfg.val_dataloader.dataset).full_init()
    return cfg


def test_points_of_the_drawing_reach_the_model(cfg):
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    for index in range(len(dataset)):
        _, boxes, _, points = draw_figures(0, 0, index, 128)
        instances = dataset[index]['data_samples'].gt_instances
        assert len(instances) == len(boxes)
        wanted = torch.from_numpy(points)
        torch.testing.assert_close(
            torch.as_tensor(instances.keypoints).double(),
            wanted[..., :2],
            atol=1e-3,
            rtol=0,
        )
        visible = torch.as_tensor(instances.keypoints_visible)
        assert visible.tolist() == wanted[..., 2].tolist()


def test_it_begins_with_the_weights_of_the_detection_demo(cfg):
    boxes = demo_config(DETECTION, Path(cfg.work_dir))
    last = boxes.train_cfg.max_epochs
    assert cfg.load_from == f'work_dirs/{DETECTION}/epoch_{last}.pth'
    model = MODELS.build(boxes.model)
    found = MODELS.build(cfg.model).load_state_dict(model.state_dict(), strict=False)
    assert all(name.startswith('keypoint_head.') for name in found.missing_keys)


def test_true_points_have_an_ap_of_one(cfg):
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    assert list(dataset.metainfo['keypoint_info'][0]['name']) == list(POINTS[0])
    for index in range(len(dataset)):
        _, boxes, labels, points = draw_figures(0, 1, index, 128)
        boxes, points = torch.from_numpy(boxes), torch.from_numpy(points)
        boxes[:, 2:] += boxes[:, :2]
        sample = dataset[index]['data_samples']
        sample.pred_instances = InstanceData(
            bboxes=boxes,
            labels=torch.from_numpy(labels),
            scores=torch.ones(len(boxes)),
            keypoints=points[..., :2],
            keypoint_scores=points[..., 2] / 2,
        )
        metric.process({}, [sample.to_dict()])
    found = metric.evaluate(len(dataset))
    assert found['coco/keypoints_mAP'] == pytest.approx(1, abs=1e-9)
    assert found['coco/bbox_mAP'] == pytest.approx(1, abs=1e-9)
