"""The proof that a super-net learns: against models that are trained alone.

    python -m tests.test_search.learning FOLDER

trains `configs/rfdetr_search_demo.py`, and five of its sub-nets, from the smallest to
the largest, alone for a third of its steps; fine-tunes the exported largest a tenth;
and prints what they reach. Two processes at a time, of one thread each. What lies in
FOLDER is not computed again.
"""

import json
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_rfdetr import config
from mmdet_rfdetr.search.export import export_subnet, subnet_config
from mmdet_rfdetr.search.supernet import by_operations
from tests.interpreter import REPOSITORY, run

TIE = 0.015
"""Differences of mAP below this one are none."""


def main(folder):
    """Train everything, and return the figures."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cfg = demo_config(folder)
    init_default_scope('mmdet')
    ordered = by_operations(MODELS.build(cfg.model))
    subnets = [ordered[round(k * (len(ordered) - 1) / 4)] for k in range(5)]
    cfg.dump(folder / 'super.py')
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(train, folder, 'super')
        alone = {}
        for subnet in reversed(subnets):  # the longest first
            path = folder / f'alone-{subnet.name}.py'
            own = subnet_config(cfg, subnet)
            own.train_cfg.update(max_epochs=cfg.max_epochs // 3)
            own.dump(path)
            alone[subnet.name] = pool.submit(train, folder, path.stem)
        whole.result()
        weights = folder / f'super/epoch_{cfg.max_epochs}.pth'
        shared = {}
        for subnet in subnets:
            _, path = export_subnet(cfg, weights, subnet, folder / 'exported')
            shared[subnet.name] = pool.submit(evaluate, folder, path)
        largest = subnets[-1].name
        tuned = pool.submit(tune, folder, folder / f'exported/{largest}.py', cfg)
        alone = {name: job.result() for name, job in alone.items()}
        shared = {name: job.result() for name, job in shared.items()}
    return dict(
        names=[subnet.name for subnet in subnets],
        alone=[alone[subnet.name] for subnet in subnets],
        shared=[shared[subnet.name] for subnet in subnets],
        tuned=tuned.result(),
    )


def demo_config(folder):
    """The demo, with its pictures in the folder."""
    cfg = Config.fromfile(config('rfdetr_search_demo.py'))
    data = str((folder / 'data').absolute())
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = data
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = f'{data}/annotations/val.json'
    return cfg


def train(folder, name, *options):
    """Train a config of the folder; its last mAP, of the sub-net or of the largest."""
    log = folder / f'{name}.log'
    if not log.exists():
        call('train.py', folder / f'{name}.py', folder / name, log, *options)
    return last_map(log)


def evaluate(folder, checkpoint):
    """The mAP of an exported sub-net, by ``tools/test.py``."""
    log = folder / f'test-{checkpoint.stem}.log'
    if not log.exists():
        cfg = checkpoint.with_suffix('.py')
        call('test.py', cfg, folder / f'test-{checkpoint.stem}', log, checkpoint)
    return last_map(log)


def tune(folder, path, cfg):
    """Fine-tune an export for a tenth of the steps."""
    images, size = cfg.pictures.num_train, cfg.train_dataloader.batch_size
    steps = cfg.max_epochs * (images // size) // 10
    own = Config.fromfile(path)
    own.train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
    own.param_scheduler.update(warmup=0)
    own.optim_wrapper.optimizer.lr *= 0.2
    own.dump(folder / 'tuned.py')
    return train(folder, 'tuned')


def call(tool, path, work_dir, log, *arguments):
    """Run a tool, and keep what it said once it is done."""
    command = [sys.executable, REPOSITORY / 'tools' / tool, path, *arguments]
    done = run([*command, '--work-dir', work_dir], OMP_NUM_THREADS='1', timeout=3000)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    log.write_text(done.stdout + done.stderr)


def last_map(log):
    """The last mAP of a log; of several sub-nets the first one's."""
    line = re.findall(r'Epoch\((?:val|test)\).*', log.read_text())[-1]
    return float(re.search(r'coco/bbox_mAP: ([\d.]+)', line)[1])


def tau(first, second):
    """Kendall's tau (b) of two lists of mAP, in which near ones are equal."""
    signs = [
        [(a > b) - (a < b) if abs(a - b) >= TIE else 0 for a, b in combinations(x, 2)]
        for x in (first, second)
    ]
    both = sum(a * b for a, b in zip(*signs, strict=True))
    return both / math.prod(sum(map(abs, each)) for each in signs) ** 0.5


if __name__ == '__main__':
    found = main(sys.argv[1])
    for name, alone, shared in zip(
        found['names'], found['alone'], found['shared'], strict=True
    ):
        print(f'{name}  alone {alone:.3f}  super-net {shared:.3f}')
    print(f'tau {tau(found["alone"], found["shared"]):.2f}')
    print(f'largest fine-tuned {found["tuned"]:.3f}')
    print(json.dumps(found))
