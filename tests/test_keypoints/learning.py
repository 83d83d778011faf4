"""The pose demo beside the official model: same start, pictures, batches, steps.

``python -m tests.test_keypoints.learning FOLDER`` trains both and prints their AP;
``RFDETR_OFFICIAL_PYTHON`` is a Python with ``rfdetr==1.11.2``. Weights of the detection
demo that are in the folder are used.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import mmdet_rfdetr
from tests import live, parity
from tests.interpreter import run

SIGMA = 0.05
DETECTION, POSE = 'rfdetr_figures_demo', 'rfdetr-pose_demo'


def demo_config(name, folder):
    """A config of the demo whose data and runs lie in a folder."""
    cfg = Config.fromfile(mmdet_rfdetr.config(f'{name}.py'))
    changes = {'work_dir': str(folder / name)}
    for part in ('train', 'val', 'test'):
        changes[f'{part}_dataloader.dataset.data_root'] = str(folder / 'data')
    for part in ('val', 'test'):
        annotations = str(folder / 'data/annotations/val.json')
        changes[f'{part}_evaluator.ann_file'] = annotations
    cfg.merge_from_dict(changes)
    return cfg


def boxes_known(folder):
    """Weights that know the boxes, trained unless they are there."""
    weights = folder / DETECTION / 'epoch_3.pth'
    if not weights.exists():
        demo_config(DETECTION, folder).dump(folder / f'{DETECTION}.py')
        command = [sys.executable, 'tools/train.py', folder / f'{DETECTION}.py']
        trained = run(command, timeout=3600)
        assert trained.returncode == 0, trained.stderr
    return str(weights)


class Record(Hook):
    """Start, rates, decays and order of the pictures, for the official side."""

    priority = 'LOWEST'

    def __init__(self, folder):
        self.folder = folder
        self.rates, self.order = [], []

    def before_train(self, runner):
        official = parity.official_entries(runner.model.state_dict())
        torch.save(official, self.folder / 'start.pth')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.optimizer.param_groups[0]['lr'])
        samples = data_batch['data_samples']
        self.order.append([sample.img_id for sample in samples])

    def after_train(self, runner):
        (ema,) = (hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
        steps = len(self.rates)
        settings = dict(
            model=official_sizes(runner.cfg),
            seed=0,
            rates=self.rates,
            # The first update copies the model.
            decays=[0.0, *map(ema.ema_model.decay_after, range(1, steps))],
            looks=[steps],
            max_norm=runner.cfg.optim_wrapper.clip_grad.max_norm,
            weight_decay=runner.cfg.optim_wrapper.optimizer.weight_decay,
            betas=runner.cfg.optim_wrapper.optimizer.betas,
        )
        (self.folder / 'settings.json').write_text(json.dumps(settings))
        train = runner.train_dataloader.dataset
        numbers = {train.get_data_info(i)['img_id']: i for i in range(len(train))}
        order = [[numbers[key] for key in batch] for batch in self.order]
        items = [train[index] for index in range(len(train))]
        parts = {**pictures_of(items), **objects_of(items), 'order': order}
        np.savez(self.folder / 'train.npz', **parts)
        val = runner.val_dataloader.dataset
        items = [val[index] for index in range(len(val))]
        np.savez(self.folder / 'val.npz', **pictures_of(items))


def official_sizes(cfg):
    """Official names of the sizes of the demo's model."""
    model = cfg.model
    backbone, decoder = model.backbone, model.decoder
    (scale,) = model.neck.scales
    return dict(
        encoder='dinov2_windowed_small',
        out_feature_indexes=list(backbone.out_indices),
        patch_size=backbone.patch_size,
        num_windows=backbone.num_windows,
        positional_encoding_size=backbone.pos_embed_size,
        resolution=backbone.patch_size * backbone.pos_embed_size,
        projector_scale=[scale],
        hidden_dim=model.neck.out_channels,
        dec_layers=decoder.num_layers,
        sa_nheads=decoder.self_attn_heads,
        ca_nheads=decoder.cross_attn_heads,
        dec_n_points=decoder.num_points,
        dim_feedforward=decoder.feedforward_channels,
        # The official head has one output more.
        num_classes=model.bbox_head.num_classes - 1,
        num_queries=model.num_queries,
        num_select=model.test_cfg.max_per_img,
        group_detr=model.num_groups,
        num_keypoints_per_class=list(model.keypoint_head.num_keypoints),
        vit=dict(
            hidden_size=backbone.embed_dims,
            num_attention_heads=backbone.num_heads,
            num_hidden_layers=max(backbone.out_indices),
        ),
    )


def pictures_of(items):
    """Pictures of items of a data set, and their ids."""
    pictures = torch.stack([item['inputs'] for item in items])
    return dict(
        pictures=pictures.permute(0, 2, 3, 1).numpy()[..., ::-1],
        ids=[item['data_samples'].img_id for item in items],
    )


def objects_of(items):
    """Their objects, as the pipeline makes them."""
    objects = [item['data_samples'].gt_instances for item in items]
    boxes = torch.cat([getattr(gt.bboxes, 'tensor', gt.bboxes) for gt in objects])
    boxes[:, 2:] -= boxes[:, :2]
    points = [
        torch.cat((gt.keypoints, gt.keypoints_visible[..., None].float()), -1)
        for gt in objects
    ]
    return dict(
        boxes=boxes.float().numpy(),
        labels=torch.cat([gt.labels for gt in objects]).numpy(),
        points=torch.cat(points).numpy(),
        counts=[len(gt) for gt in objects],
    )


def train_ours(folder, seed):
    """OKS AP of the averaged weights of this package at the end."""
    weights, run_folder = boxes_known(folder), folder / str(seed)
    run_folder.mkdir()
    cfg = demo_config(POSE, folder)
    cfg.load_from, cfg.work_dir = weights, str(run_folder / 'run')
    cfg.randomness = dict(seed=seed)
    cfg.model.keypoint_head.score_mode = 'fused'  # as the official scores are
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Record(run_folder), priority='LOWEST')
    runner.train()
    return runner.message_hub.get_scalar('val/coco/keypoints_mAP').current()


def train_official(folder, seed):
    """OKS AP of the averaged weights of the official model after the same steps."""
    run_folder = folder / str(seed)
    module = 'tests.test_keypoints.official_figures'
    command = [live.PYTHON, '-W', 'ignore', '-m', module, run_folder]
    trained = run(command, timeout=3600)
    assert trained.returncode == 0, trained.stderr
    (results,) = run_folder.glob('official_*.json')
    annotations = folder / 'data/annotations/val.json'
    return oks_ap(annotations, json.loads(results.read_text()))


def compare(folder, seeds=(0, 1)):
    """OKS AP by seed, (seeds, 2): this package, and the official model.

    Rounding grows to other weights within a hundred steps, so that two runs of one
    program differ by a few hundredths as well; the means of some are compared.
    """
    found = []
    for seed in seeds:
        found.append((train_ours(folder, seed), train_official(folder, seed)))
        print('OKS AP: {:.4f} here, {:.4f} official'.format(*found[-1]), flush=True)
    return np.array(found)


def oks_ap(annotations, results):
    """COCO's AP of points with the sigmas that points without a table have."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), 'keypoints')
        points = len(results[0]['keypoints']) // 3
        evaluation.params.kpt_oks_sigmas = np.full(points, SIGMA)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


if __name__ == '__main__':
    torch.set_num_threads(1)
    path = Path(sys.argv[1])
    path.mkdir(parents=True, exist_ok=True)
    compare(path)
