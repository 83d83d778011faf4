"""What ``tools/verify.py`` does with its arguments."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from . import running
from .testing import dataset_of

ANNOTATIONS = 'annotations/instances_val2017.json'
POINTS = 'annotations/person_keypoints_val2017.json'
KINDS = {'mask_head': 'segm', 'keypoint_head': 'keypoints'}
IMAGES = 5000
"""Of COCO val2017."""


def verify(args: argparse.Namespace) -> None:
    """Evaluate on COCO val2017, and print what was published beside what was measured.

    Args:
        args: of the tool; ``published`` is AP and AP50 in percent, or None.
    """
    cfg = running.load_config(args)
    cfg.load_from = args.weights
    use_coco(cfg, args.coco)
    kinds = [kind for head, kind in KINDS.items() if cfg.model.get(head)]
    kind = kinds[0] if kinds else 'bbox'
    what = f'{Path(args.weights).name} with {Path(args.config).name}, {kind}'

    def run(runner: Runner) -> None:
        found = runner.test()
        if is_main_process():
            count = len(runner.test_dataloader.dataset)
            print(f'\n{what}, {count} images of COCO val2017')
            print(table(found, kind, args.published))
            if count != IMAGES:
                print(f'What is published is for all {IMAGES} images.')

    running.run(cfg, run, trust_checkpoint=args.trust_checkpoint)


def use_coco(cfg: Config, folder: str) -> None:
    """Have a config test on COCO val2017.

    Args:
        cfg: changed in place.
        folder: the usual one, with ``annotations/`` and ``val2017/``.
    """
    file = POINTS if cfg.model.get('keypoint_head') else ANNOTATIONS
    data = dict(data_root=folder, ann_file=file, data_prefix=dict(img='val2017'))
    dataset_of(cfg).update(data)
    cfg.test_evaluator.ann_file = str(Path(folder, file))


def table(
    found: Mapping[str, float], kind: str, published: Sequence[float] | None
) -> str:
    """Show figures side by side, in percent.

    Args:
        found: what MMDetection's metric says.
        kind: ``'bbox'``, ``'segm'`` or ``'keypoints'``.
        published: AP and AP50, None if nothing is.
    """
    lines = ['      published  measured  difference']
    names = dict(AP=f'coco/{kind}_mAP', AP50=f'coco/{kind}_mAP_50')
    for name, said in zip(names, published or [None] * len(names), strict=True):
        value = 100 * found[names[name]]
        beside = ('unknown', '') if said is None else (said, f'{value - said:+.1f}')
        lines.append(f'{name:<4}{beside[0]:>11}{value:>10.1f}{beside[1]:>12}'.rstrip())
    return '\n'.join(lines)
