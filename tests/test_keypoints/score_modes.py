"""What the two scores of detections with points cost and save.

``python -m tests.test_keypoints.score_modes FOLDER`` trains the pose demo for 150 and
for 600 steps, and prints of both ``score_mode`` the OKS AP, and what a threshold of 0.5
or 0.7 leaves: recall and precision, a detection with an OKS of 0.5 being right. Weights
of the detection demo that are in the folder are used.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.runner import Runner
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_rfdetr.keypoints import RFDETRKeypointHead
from tests.test_keypoints.learning import POSE, SIGMA, boxes_known, demo_config

STEPS, BATCH = (150, 600), 4
THRESHOLDS = 0.5, 0.7


def train(folder, steps):
    """A runner that has trained for so many steps, and writes what it finds."""
    cfg = demo_config(POSE, folder)
    cfg.load_from, cfg.work_dir = boxes_known(folder), str(folder / f'steps_{steps}')
    cfg.train_dataloader.dataset.indices = BATCH * steps
    cfg.val_evaluator.outfile_prefix = str(folder / f'steps_{steps}')
    cfg.randomness = dict(seed=0)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def look(runner, folder, steps, mode):
    """OKS AP of a mode, and its detections."""
    for module in runner.model.modules():
        if isinstance(module, RFDETRKeypointHead):
            module.score_mode = mode
    found = runner.val_loop.run()['coco/keypoints_mAP']
    return found, json.loads((folder / f'steps_{steps}.keypoints.json').read_text())


def above(annotations, detections, threshold):
    """Recall and precision of the detections above a score; None if there are none."""
    kept = [each for each in detections if each['score'] > threshold]
    if not kept:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(kept), 'keypoints')
        evaluation.params.kpt_oks_sigmas = np.full(
            len(kept[0]['keypoints']) // 3, SIGMA
        )
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluation.evaluate()
    right = sum((each['dtMatches'] > 0).sum() for each in evaluation.evalImgs if each)
    return right / len(truth.anns), right / len(kept)


def main(folder):
    """Print the table."""
    annotations = folder / 'data/annotations/val.json'
    rows = []
    for steps in STEPS:
        runner = train(folder, steps)
        for mode in ('class', 'fused'):
            precision, detections = look(runner, folder, steps, mode)
            cells = [
                '{:.3f}, {:.3f}'.format(*found) if found else 'nothing'
                for found in (above(annotations, detections, t) for t in THRESHOLDS)
            ]
            rows.append((str(steps), f'`{mode}`', f'{precision:.3f}', *cells))
    print('| steps | `score_mode` | OKS AP | above 0.5 | above 0.7 |')
    print(*(f'| {" | ".join(row)} |' for row in rows), sep='\n')


if __name__ == '__main__':
    torch.set_num_threads(1)
    path = Path(sys.argv[1])
    path.mkdir(parents=True, exist_ok=True)
    main(path)
