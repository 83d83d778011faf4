"""The learning comparison: both programs train, and their curves are compared.

Both start from one official checkpoint, which this package's loader reads, and see the
batches of :mod:`tests.learning_case`. This side is mmengine's Runner with the training
settings of the shipped configs.
"""

import os
import sys

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

import mmdet_rfdetr
from mmdet_rfdetr.boxes import cxcywh_to_xyxy
from tests import learning_case, parity
from tests.interpreter import run

HOOKS = ('ema', 'precision', 'non_finite', 'param_scheduler', 'logger', 'timer')
ZERO_GRADIENT = '.attention.key.bias'
"""A bias that moves all scores of a softmax alike: its gradient is rounding alone."""


@DATASETS.register_module()
class LearningPictures(Dataset):
    """The pictures of an epoch, one after the other."""

    metainfo = dict(classes=tuple(map(str, range(learning_case.NUM_CLASSES))))

    def __init__(self):
        self.batches = [
            learning_case.batch(index) for index in range(learning_case.BATCHES)
        ]

    def __len__(self):
        return learning_case.BATCHES * len(learning_case.COUNTS)

    def __getitem__(self, index):
        batch, number = divmod(index, len(learning_case.COUNTS))
        pictures, objects = self.batches[batch]
        side = learning_case.LARGEST
        sample = DetDataSample(metainfo=dict(img_shape=(side, side), img_id=index))
        sample.gt_instances = InstanceData(
            bboxes=side * cxcywh_to_xyxy(torch.from_numpy(objects[number]['boxes'])),
            labels=torch.from_numpy(objects[number]['labels']),
        )
        return dict(
            inputs=torch.from_numpy(pictures[number].copy()), data_samples=sample
        )


class Record(Hook):
    """Terms, rates and gradient norms, as the official side records them."""

    priority = 'LOWEST'

    def __init__(self):
        self.terms, self.rates, self.norms, self.sizes = [], [], [], []

    def before_train(self, runner):
        step = runner.optim_wrapper._clip_grad

        def recorded():
            grads = [
                parameter.grad
                for parameter in runner.model.parameters()
                if parameter.grad is not None
            ]
            self.norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
            step()

        runner.optim_wrapper._clip_grad = recorded
        runner.model.backbone.register_forward_pre_hook(
            lambda module, inputs: self.sizes.append(inputs[0].shape[-1])
        )

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        self.rates.append([group['lr'] for group in groups])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.terms.append({name: value.item() for name, value in outputs.items()})


def config(folder, accumulation):
    """The shipped config with the model and the data of the case."""
    sizes = learning_case.MODEL
    shipped = Config.fromfile(mmdet_rfdetr.config('rfdetr_coco.py'))
    divisor = sizes['patch_size'] * sizes['num_windows']
    model = parity.model_config(sizes, learning_case.NUM_CLASSES)
    model['data_preprocessor'] = dict(
        type='DetDataPreprocessor',
        batch_augments=[
            dict(
                type='RFDETRBatchMultiScale',
                image_size=sizes['resolution'],
                size_divisor=divisor,
            )
        ],
    )
    hooks = {name: shipped.default_hooks[name] for name in HOOKS}
    hooks['checkpoint'] = None
    settings = learning_case.SETTINGS
    return Config(
        dict(
            default_scope='mmdet',
            work_dir=str(folder),
            experiment_name=f'learning_{accumulation}',
            model=model,
            train_dataloader=dict(
                batch_size=len(learning_case.COUNTS),
                sampler=dict(type='DefaultSampler', shuffle=False),
                num_workers=0,
                dataset=dict(type='LearningPictures'),
            ),
            train_cfg=dict(shipped.train_cfg, max_epochs=settings['epochs']),
            optim_wrapper=dict(
                shipped.optim_wrapper,
                device_type='cpu',
                dtype='float32',
                accumulative_counts=accumulation,
                optimizer=dict(shipped.optim_wrapper.optimizer, lr=settings['lr']),
                paramwise_cfg=dict(
                    shipped.optim_wrapper.paramwise_cfg,
                    lr_encoder=settings['lr_encoder'],
                ),
            ),
            param_scheduler=dict(
                shipped.param_scheduler,
                preset=settings['lr_scheduler'],
                warmup=settings['warmup_epochs'],
            ),
            default_hooks=hooks,
            load_from=str(folder / 'start.pth'),
            log_level='WARNING',
        )
    )


def train(folder, accumulation):
    """Train from ``start.pth``; the same names as on the official side."""
    runner = Runner.from_cfg(config(folder, accumulation))
    record = Record()
    runner.register_hook(record, priority='LOWEST')
    runner.train()
    found = {
        f'term/{parity.official_term(name)}': np.array(
            [terms[name] for terms in record.terms]
        )
        for name in record.terms[0]
        if name != 'loss'
    }
    found.update(
        rates=np.array(record.rates),
        norms=np.array(record.norms),
        sizes=np.array(record.sizes),
    )
    (ema,) = (hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
    for kind, model in (('weight', runner.model), ('average', ema.ema_model.module)):
        found.update(
            (f'{kind}/{name}', value.numpy())
            for name, value in parity.official_entries(model.state_dict()).items()
        )
    return found


def train_official(folder, accumulation, python=None):
    """Let the official package train, in a process of its own.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    python = python or os.environ.get('RFDETR_OFFICIAL_PYTHON') or sys.executable
    result = run([python, '-m', 'tests.official_learning', folder, accumulation])
    if result.returncode:
        raise RuntimeError(f'{python} -m tests.official_learning:\n{result.stderr}')
    with np.load(folder / 'official.npz') as archive:
        return dict(archive)


def total(found):
    """The weighted total of each iteration."""
    return sum(
        values for name, values in found.items() if name.startswith('term/loss_')
    )


def difference(ours, theirs):
    """Difference of two curves at each step, as a part of the official value."""
    return np.abs(ours - theirs) / np.abs(theirs)


def first_beyond(differences, bound):
    """The first step, from 1, whose difference exceeds ``bound``; None without."""
    beyond = np.flatnonzero(differences > bound)
    return int(beyond[0]) + 1 if len(beyond) else None


def weight_difference(ours, theirs, kind):
    """How far the weights at the end are apart, as a part of the way they went.

    Args:
        ours: from :func:`train`.
        theirs: from :func:`train_official`.
        kind: ``'weight'``, or ``'average'`` for the moving average.
    """
    start = torch.load(theirs['start'], weights_only=True)['model']
    apart = moved = 0.0
    for name, value in ours.items():
        prefix, _, name = name.partition('/')
        if prefix != kind or name.endswith(ZERO_GRADIENT):
            continue
        wanted = theirs[f'{kind}/{name}'].astype(np.float64)
        apart += np.square(value - wanted).sum()
        moved += np.square(wanted - start[name].numpy()).sum()
    return float(np.sqrt(apart / moved))
