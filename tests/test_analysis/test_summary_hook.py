"""The hook in runs of mmengine's Runner."""

import numpy as np
import pycocotools.mask as rle
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from PIL import Image

from mmdet_rfdetr import analysis
from mmdet_rfdetr.analysis import curve, summary_hook
from mmdet_rfdetr.segmentation.mask_results import EncodedMasks
from tests.factory import write_project

BASE = "__import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')"


@pytest.fixture
def drawn(monkeypatch):
    """Arguments of every curve that was drawn."""
    calls = []
    draw = curve.training_curve

    def recording(losses, rates, metrics):
        calls.append((losses, rates, metrics))
        return draw(losses, rates, metrics)

    monkeypatch.setattr(curve, 'training_curve', recording)
    return calls


def config(folder, monkeypatch, epochs):
    path = write_project(folder, BASE)
    monkeypatch.chdir(folder)
    cfg = Config.fromfile(path)
    cfg.work_dir = str(folder / 'work')
    cfg.train_cfg.max_epochs = epochs
    cfg.default_hooks.summary = dict(type='RFDETRSummaryHook', num_images=3)
    return cfg


def test_training_leaves_both_pictures(tmp_path, monkeypatch, drawn):
    Runner.from_cfg(config(tmp_path, monkeypatch, epochs=2)).train()
    ((losses, rates, metrics),) = drawn
    assert len(losses) == len(rates) == 4
    assert [step for step, _ in metrics['coco/bbox_mAP']] == [2, 4]
    for name in ('training_curve', 'detections'):
        with Image.open(tmp_path / 'work' / f'{name}.png') as picture:
            assert picture.width > 600


def test_a_resumed_run_draws_the_whole_curve(tmp_path, monkeypatch, drawn):
    cfg = config(tmp_path, monkeypatch, epochs=2)
    Runner.from_cfg(cfg).train()
    cfg.train_cfg.max_epochs = 3
    cfg.resume = True
    Runner.from_cfg(cfg).train()
    (first, *_), (losses, rates, metrics) = drawn
    assert len(losses) == len(rates) == 6
    np.testing.assert_array_equal(losses[:4], first)
    steps = [step for step, _ in metrics['coco/bbox_mAP']]
    assert steps[0] == 2 and steps[-1] == 6


def test_testing_leaves_the_detections(tmp_path, monkeypatch, drawn):
    Runner.from_cfg(config(tmp_path, monkeypatch, epochs=1)).test()
    assert (tmp_path / 'work' / 'detections.png').is_file()
    assert drawn == []


def sample(path, **instances):
    built = DetDataSample(metainfo=dict(ori_shape=(20, 30), img_path=str(path)))
    for name, (boxes, scores) in instances.items():
        data = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.zeros(len(boxes), dtype=torch.long),
        )
        if scores is not None:
            data.scores = torch.tensor(scores)
        setattr(built, name, data)
    return built


def test_weak_predictions_are_left_out(tmp_path):
    boxes = [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]
    built = sample(tmp_path, pred_instances=(boxes, [0.9, 0.1, 0.5]))
    hook = analysis.RFDETRSummaryHook(score_thr=0.3)
    hook.after_val_iter(None, 0, outputs=[built])
    kept = hook._samples[0].pred_instances
    assert kept.bboxes[:, 2].tolist() == [1, 3]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5])


def test_only_masks_that_are_drawn_are_kept(tmp_path):
    """Masks of all detections of twelve photographs would take gigabytes."""
    boxes = [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]
    built = sample(tmp_path, pred_instances=(boxes, [0.9, 0.1, 0.5]))
    masks = torch.arange(3)[:, None, None].expand(-1, 4, 4) == torch.arange(4)
    codes = rle.encode(np.asfortranarray(masks.permute(1, 2, 0).byte().numpy()))
    for kind in (masks, EncodedMasks(codes, 4, 4)):
        built.pred_instances.masks = kind
        hook = analysis.RFDETRSummaryHook(score_thr=0.3)
        hook.after_val_iter(None, 0, outputs=[built])
        kept = hook._samples[0].pred_instances.masks
        np.testing.assert_array_equal(np.stack(list(kept)), masks[[0, 2]])
    assert len(built.pred_instances.masks) == 3


def test_only_so_many_images_are_kept(tmp_path):
    hook = analysis.RFDETRSummaryHook(num_images=3)
    for _ in range(3):
        outputs = [sample(tmp_path, pred_instances=([], None))] * 2
        hook.after_val_iter(None, 0, outputs=outputs)
    assert len(hook._samples) == 3
    hook.before_val_epoch(None)
    assert hook._samples == []


def test_images_without_file_are_black(tmp_path):
    built = sample(tmp_path / 'gone.jpg', pred_instances=([], None))
    assert summary_hook.read_image(built).shape == (20, 30, 3)
