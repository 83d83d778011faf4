"""The shipped Seg Nano config, shrunk: trained, evaluated, asked and drawn."""

import json

import numpy as np
import pycocotools.mask as rle
import pytest
from mmdet.apis import DetInferencer
from mmengine.runner import Runner
from PIL import Image

from mmdet_rfdetr.segmentation import mask_results
from tests.test_segmentation.project import shrunk_config, write_pictures


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Config and metrics of one epoch of training."""
    folder = tmp_path_factory.mktemp('rings')
    write_pictures(folder)
    cfg = shrunk_config(folder)
    runner = Runner.from_cfg(cfg)
    runner.train()
    losses = runner.message_hub.log_scalars
    return cfg, folder, runner.val_loop.run(), losses


def test_training_learns_masks(run):
    _, _, _, losses = run
    for prefix in ('', 'd0.', 'enc_'):
        for term in ('loss_mask', 'loss_dice'):
            values = losses[f'train/{prefix}{term}'].data[0]
            assert len(values) == 2
            assert np.isfinite(values).all()
            assert (values > 0).all()


def test_masks_and_boxes_are_evaluated(run):
    _, folder, metrics, _ = run
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics)
    assert list((folder / 'work').glob('best_coco_segm_mAP_epoch_1.pth'))


def test_validation_loss_has_masks(run):
    _, _, metrics, _ = run
    assert metrics['loss'] > metrics['loss_mask'] + metrics['enc_loss_dice'] > 0


@pytest.fixture
def inferencer(run):
    cfg, folder, _, _ = run
    return DetInferencer(
        cfg, str(folder / 'work' / 'epoch_1.pth'), device='cpu', show_progress=False
    )


@pytest.mark.parametrize('encoded', [False, True])
def test_inferencer_gives_and_draws_masks(
    run, inferencer, tmp_path, encoded, monkeypatch
):
    if encoded:
        monkeypatch.setattr(mask_results, 'DENSE_BYTES', 0)
    picture = str(run[1] / '0.png')
    result = inferencer(
        picture, out_dir=str(tmp_path), no_save_pred=False, pred_score_thr=0.0
    )
    (found,) = result['predictions']
    assert len(found['masks']) == len(found['scores']) == 6
    masks = rle.decode(found['masks'])
    assert masks.shape == (60, 80, 6)
    assert json.loads((tmp_path / 'preds' / '0.json').read_text()) == found
    drawn = np.asarray(Image.open(tmp_path / 'vis' / '0.png'))
    changed = (drawn != np.asarray(Image.open(picture))).any(-1)
    assert changed[masks.any(-1)].mean() > 0.9
