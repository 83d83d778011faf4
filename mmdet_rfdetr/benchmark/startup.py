"""How long the command that trains takes to answer, and until it has made a step."""

import atexit
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from mmdet.registry import DATASETS
from mmengine.config import Config

from ..errors import SettingError
from ..shipped import config
from .clock import Clock

STOCK = Path(__file__).with_name('stock.py')
LOG_EACH_STEP = 'default_hooks.logger.interval=1'


def startup(
    cfg: Config, args: SimpleNamespace, clock: Clock
) -> tuple[Callable[[], None], dict]:
    """Help, import, and the whole of a run until the log shows its first step.

    Each is a process of its own, with all that it starts. The side to compare with is
    ``tools/train.py`` of MMDetection, which trains a DETR of the size of the demo model
    on the pictures of the config.

    Raises:
        SettingError: CPU time is asked for where there is no ``/proc``.
    """
    if args.clock == 'cpu' and not os.path.exists('/proc/self/task'):
        raise SettingError(
            '--clock cpu: --task startup needs /proc for it: leave it out'
        )
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    work_dir = Path(folder, 'work')
    # The pictures of the demo are drawn by the first that needs them.
    data = DATASETS.build(cfg.train_dataloader.dataset)
    if args.plain:
        path = Path(folder, 'stock.py')
        stock_config(cfg, data.metainfo['classes']).dump(path)
        tool, load = [STOCK], [STOCK]
    else:
        path = args.target
        tools = Path(config('rfdetr_nano_coco.py')).parents[1] / 'tools'
        tool, load = [tools / 'train.py'], ['-c', 'import mmdet_rfdetr']
    options = [f'{key}={value}' for key, value in args.cfg_options.items()]
    options = ['--work-dir', work_dir, '--cfg-options', LOG_EACH_STEP, *options]

    def work() -> None:
        clock.add('help', run(args, *tool, '--help'))
        clock.add('import', run(args, *load))
        clock.add('first step', run(args, *tool, path, *options, until='Epoch(train)'))
        shutil.rmtree(work_dir)

    return work, {}


def run(args: SimpleNamespace, *command: object, until: str | None = None) -> float:
    """Milliseconds of a command of this Python, and of what it starts.

    Args:
        args: its ``clock`` and ``threads``.
        *command: what follows the interpreter.
        until: stop where it prints this, and not at its end.

    Raises:
        SettingError: it failed, or ended without printing this.
    """
    environment = dict(os.environ, PYTHONUNBUFFERED='1')
    if args.threads:
        environment['OMP_NUM_THREADS'] = str(args.threads)
    before, start = _ended(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    line, found = '', False
    with process:
        for line in process.stdout:
            if until and until in line:
                found, wall = True, time.perf_counter() - start
                cpu = sum(map(_used, _family(process.pid)))
                os.killpg(process.pid, signal.SIGKILL)
                break
    if not found:
        wall, cpu = time.perf_counter() - start, _ended() - before
    if found != bool(until) or (not found and process.returncode):
        told = f'{" ".join(map(str, command))}: {line.strip() or process.returncode}'
        raise SettingError(f'--task startup: a command failed: {told}')
    return 1e3 * (cpu if args.clock == 'cpu' else wall)


def _ended() -> float:
    """CPU seconds of the processes that this one has started and seen end."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _used(pid: int) -> float:
    """CPU seconds of a process that runs, and of its children that have ended."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except FileNotFoundError:  # no Linux, or gone
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for path in Path(f'/proc/{pid}/task').glob('*/children'):
        for child in path.read_text().split():
            found += _family(int(child))
    return found


def stock_config(cfg: Config, classes: tuple) -> Config:
    """A DETR of MMDetection, of 3.8 M parameters, on the data of a config.

    Args:
        cfg: of this package; the model of the demo has 4.0 M.
        classes: names.
    """
    size = cfg.image_size
    load = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(size, size), keep_ratio=False),
        dict(type='LoadAnnotations', with_bbox=True),
    ]
    pipelines = dict(
        train=[*load, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')],
        val=[*load, dict(type='PackDetInputs')],
    )

    def loader(split: str) -> dict:
        own = cfg[f'{split}_dataloader']
        keys = ('data_root', 'ann_file', 'data_prefix')
        dataset = dict(
            {key: own.dataset[key] for key in keys if key in own.dataset},
            type='CocoDataset',
            metainfo=dict(classes=classes),
            pipeline=pipelines[split],
            test_mode=split == 'val',
        )
        keys = ('batch_size', 'num_workers', 'persistent_workers')
        return dict(
            {key: own[key] for key in keys if key in own},
            sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            dataset=dataset,
        )

    attention = dict(embed_dims=128, num_heads=4, dropout=0.1, batch_first=True)
    ffn = dict(embed_dims=128, feedforward_channels=512)
    layer = dict(self_attn_cfg=attention, ffn_cfg=ffn)
    costs = [
        dict(type='ClassificationCost', weight=1.0),
        dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='IoUCost', iou_mode='giou', weight=2.0),
    ]
    model = dict(
        type='DETR',
        num_queries=64,
        data_preprocessor=dict(
            type='DetDataPreprocessor', mean=[124, 116, 104], std=[58, 57, 57]
        ),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=32,
            stem_channels=32,
            out_indices=(3,),
        ),
        neck=dict(
            type='ChannelMapper',
            in_channels=[256],
            kernel_size=1,
            out_channels=128,
            act_cfg=None,
            num_outs=1,
        ),
        encoder=dict(num_layers=2, layer_cfg=layer),
        decoder=dict(
            num_layers=2,
            layer_cfg=dict(layer, cross_attn_cfg=attention),
            return_intermediate=True,
        ),
        positional_encoding=dict(num_feats=64, normalize=True),
        bbox_head=dict(type='DETRHead', num_classes=len(classes), embed_dims=128),
        train_cfg=dict(assigner=dict(type='HungarianAssigner', match_costs=costs)),
    )
    annotations = os.path.join(
        cfg.val_dataloader.dataset.get('data_root', ''),
        cfg.val_dataloader.dataset.ann_file,
    )
    optimizer = dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
    return Config(
        dict(
            default_scope='mmdet',
            model=model,
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            val_evaluator=dict(type='CocoMetric', ann_file=annotations, metric='bbox'),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=5),
            val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer),
            default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
            visualizer=dict(
                type='DetLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
            ),
            env_cfg=dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)),
        )
    )
