"""The shipped Pose Nano config, shrunk: trained, evaluated, asked and drawn."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.runner import Runner
from PIL import Image

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.keypoints import RFDETRKeypointHead
from tests.shrunk import assert_two_processes_train
from tests.test_benchmark.test_benchmark import run_task

from .project import NAMES, SIGMAS, shrunk_config, write_pictures

COLOUR = (220, 20, 60)
"""Of the class, in the palette of the project."""
TERMS = 'loss_kpt_l1', 'loss_kpt_findable', 'loss_kpt_visible', 'loss_kpt_nll'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Config, folder, metrics and runner of one epoch of training."""
    folder = tmp_path_factory.mktemp('poses')
    write_pictures(folder, (1, 2, 1, 2))
    cfg = shrunk_config(folder)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return cfg, folder, runner.val_loop.run(), runner


def test_training_learns_points(run):
    losses = run[3].message_hub.log_scalars
    for prefix in ('', 'd0.', 'enc_'):
        for term in TERMS:
            values = losses[f'train/{prefix}{term}'].data[0]
            assert len(values) == 2 and np.isfinite(values).all()
            # A likelihood may be above one.
            assert all(value != 0 for value in values)


def test_the_best_checkpoint_is_that_of_the_points(run):
    _, folder, metrics, _ = run
    assert {'coco/bbox_mAP', 'coco/keypoints_mAP', 'coco/keypoints_AR_m'} <= {*metrics}
    (best,) = (folder / 'work').glob('best_*.pth')
    assert best.name == 'best_coco_keypoints_mAP_epoch_1.pth'


def test_what_is_known_of_points_travels_in_the_checkpoint(run):
    meta = load_checkpoint_file(run[1] / 'work' / 'epoch_1.pth')['meta']
    known = meta['dataset_meta']
    assert known['num_keypoints'] == [3] and known['flip_indices'] == [0, 2, 1]
    assert known['sigmas'] == SIGMAS
    info = known['keypoint_info']
    assert [info[n]['name'] for n in range(3)] == NAMES
    links = [line['link'] for line in known['skeleton_info'].values()]
    assert links == [('top', 'left_foot'), ('top', 'right_foot')]


def test_the_log_states_the_sigmas(run):
    (log,) = (run[1] / 'work').glob('*/*.log')
    assert f'keypoints of 3 points, sigmas {SIGMAS}' in log.read_text()


def test_validation_loss_has_points(run):
    metrics = run[2]
    terms = [metrics[prefix + term] for prefix in ('', 'd0.', 'enc_') for term in TERMS]
    assert np.isfinite(terms).all() and all(terms)


def test_inferencer_gives_and_draws_points(run, tmp_path):
    cfg, folder, _, _ = run
    weights = str(folder / 'work' / 'epoch_1.pth')
    inferencer = DetInferencer(cfg, weights, device='cpu', show_progress=False)
    inferencer.visualizer.point_score_thr = 0
    picture = str(folder / '0.png')
    found = inferencer(picture, return_datasamples=True, pred_score_thr=0.0)
    instances = found['predictions'][0].pred_instances
    assert instances.keypoints.shape == (6, 3, 2)
    assert instances.keypoint_covariances.shape == (6, 3, 2, 2)
    assert instances.scores.equal(instances.scores.sort(descending=True)[0])
    inferencer(picture, out_dir=str(tmp_path), pred_score_thr=0.0)
    drawn = np.asarray(Image.open(tmp_path / 'vis' / '0.png')).astype(int)
    for x, y in instances.keypoints[0].round().int().tolist():
        assert abs(drawn[y, x] - np.asarray(Image.open(picture))[y, x]).any()


def test_the_picture_of_a_run_shows_the_true_points(run):
    picture = Image.open(run[1] / 'work' / 'detections.png')
    left, top, scale = 8, 22, 4  # of the first picture, 80 pixels drawn as 320
    at = (8 + 2, 6 + 18)  # the left foot, far from box and name
    assert picture.getpixel((left + scale * at[0], top + scale * at[1])) == COLOUR


def test_weights_to_begin_with_are_set_to_unit_precision(run, tmp_path):
    """The hook of the shipped configs, in a run that begins with ``load_from``."""
    cfg, folder, _, _ = run
    cfg = cfg.copy()
    weights = load_checkpoint_file(folder / 'work' / 'epoch_1.pth')
    for name, value in weights['state_dict'].items():
        if name.startswith('keypoint_head.embed.2'):
            value[4:7] = 1
    torch.save(weights, tmp_path / 'start.pth')
    cfg.load_from, cfg.work_dir = str(tmp_path / 'start.pth'), str(tmp_path / 'work')
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.custom_hooks = []
    cfg.default_hooks.checkpoint.save_best = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    (head,) = (m for m in runner.model.modules() if isinstance(m, RFDETRKeypointHead))
    assert not head.embed[-1].weight[4:7].any() and not head.embed[-1].bias[4:7].any()


def test_a_training_step_with_points_is_measured(run, tmp_path, monkeypatch):
    seen = []
    points = RFDETRKeypointHead.get_targets

    def watched(*args):
        seen.append(points(*args))
        return seen[-1]

    monkeypatch.setattr(RFDETRKeypointHead, 'get_targets', watched)
    run[0].dump(tmp_path / 'config.py')
    project = SimpleNamespace(config=str(tmp_path / 'config.py'), data='')
    samples, _ = run_task(project, 'training', turns=1, boxes=4)
    assert samples[0]['criterion'] > 0
    assert seen[0].xy.shape == (4, 3, 2) and seen[0].visibility.eq(2).all()


@pytest.mark.long
def test_one_process_without_objects(tmp_path):
    """Data-parallel training stops if a process leaves parameters without gradient."""
    write_pictures(tmp_path, (0, 1, 1, 1))
    assert_two_processes_train(shrunk_config(tmp_path), tmp_path)


def test_points_are_written_as_results_that_pycocotools_loads(run, tmp_path):
    cfg, folder, metrics, _ = run
    cfg = cfg.copy()
    cfg.test_evaluator.outfile_prefix = str(tmp_path / 'found')
    cfg.load_from, cfg.work_dir = str(folder / 'work/epoch_1.pth'), str(tmp_path)
    again = Runner.from_cfg(cfg).test()
    assert again['coco/keypoints_mAP'] == metrics['coco/keypoints_mAP']
    points = json.loads((tmp_path / 'found.keypoints.json').read_text())
    boxes = json.loads((tmp_path / 'found.bbox.json').read_text())
    assert len(points) == len(boxes) > 0
    for one, other in zip(points, boxes, strict=True):
        assert one == {key: other[key] for key in one if key != 'keypoints'} | dict(
            keypoints=one['keypoints']
        )
        assert len(one['keypoints']) == 9 and 'bbox' not in one
