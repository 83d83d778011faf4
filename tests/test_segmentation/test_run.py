"""The shipped Seg Nano config, shrunk: trained, evaluated, asked and drawn."""

import json

import numpy as np
import pycocotools.mask as rle
import pytest
from mmdet.apis import DetInferencer
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmdet_rfdetr import config, set_image_size
from mmdet_rfdetr.models import mask_results

CLASSES = ('ring', 'bar')


def write_pictures(folder):
    """A ring as run lengths and a bar as polygon of two parts, in four pictures."""
    images, annotations = [], []
    for index in range(4):
        picture = np.full((60, 80, 3), 40, np.uint8)
        x, y = 5 + 10 * index, 8
        ring = np.zeros((60, 80), bool)
        ring[y : y + 30, x : x + 30] = True
        ring[y + 10 : y + 20, x + 10 : x + 20] = False
        picture[ring] = 220
        picture[45:50, 10:30] = picture[45:50, 40:70] = (200, 60, 60)
        Image.fromarray(picture).save(folder / f'{index}.png')
        images.append(dict(id=index, file_name=f'{index}.png', height=60, width=80))
        code = rle.encode(np.asfortranarray(ring.astype(np.uint8)))
        bars = [
            [10, 45, 30, 45, 30, 50, 10, 50],
            [40, 45, 70, 45, 70, 50, 40, 50],
        ]
        for category, box, segmentation in (
            (1, [x, y, 30, 30], dict(size=[60, 80], counts=code['counts'].decode())),
            (2, [10, 45, 60, 5], bars),
        ):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=category,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                    segmentation=segmentation,
                )
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    (folder / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )


def shrunk_config(folder):
    cfg = Config.fromfile(config('rfdetr-seg_nano_coco.py'))
    set_image_size(cfg, 96)
    dataset = dict(
        data_root=str(folder),
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES, palette=[(220, 20, 60), (0, 80, 255)]),
    )
    loader = dict(
        batch_size=2, num_workers=0, persistent_workers=False, dataset=dataset
    )
    metric = dict(ann_file=str(folder / 'annotations.json'))
    cfg.merge_from_dict(
        dict(
            work_dir=str(folder / 'work'),
            model=dict(
                precision=None,
                num_queries=8,
                num_groups=2,
                backbone=dict(embed_dims=24, num_heads=2, out_indices=(1, 2)),
                neck=dict(in_channels=[24, 24], out_channels=16, num_blocks=1),
                decoder=dict(
                    num_layers=2,
                    self_attn_heads=2,
                    cross_attn_heads=2,
                    feedforward_channels=32,
                ),
                bbox_head=dict(num_classes=2),
                test_cfg=dict(max_per_img=6),
            ),
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=metric,
            test_evaluator=metric,
            optim_wrapper=dict(device_type='cpu', dtype='float32'),
            train_cfg=dict(max_epochs=1),
            custom_hooks=[dict(type='RFDETRValLossHook')],
        )
    )
    return cfg


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
    DetLocalVisualizer._instance_dict.clear()
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
