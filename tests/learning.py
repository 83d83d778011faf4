"""The learning comparison: both programs train, and their curves are compared.

Both start from one official checkpoint, which this package's loader reads, and see the
batches of :mod:`tests.learning_case`. This side is mmengine's Runner with the training
settings of the shipped configs.
"""

import contextlib
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
from mmdet_rfdetr.ops.boxes import cxcywh_to_xyxy
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


def train(folder, accumulation, tokens=None):
    """Train from ``start.pth``; the same names as on the official side.

    Args:
        folder: where ``start.pth`` is.
        accumulation: batches of an optimizer step.
        tokens: (steps, G, B, k) to select in place of the best ones.
    """
    runner = Runner.from_cfg(config(folder, accumulation))
    record = Record()
    runner.register_hook(record, priority='LOWEST')
    given = contextlib.nullcontext([])
    if tokens is not None:
        given = parity.given_selection(tokens)
    with given as margins:
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
        margins=np.array(margins),
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


def weight_difference(ours, theirs, start, kind):
    """How far the weights at the end are apart, as a part of the way they went.

    Args:
        ours: from :func:`train`.
        theirs: from :func:`train_official`.
        start: ``start.pth``.
        kind: ``'weight'``, or ``'average'`` for the moving average.
    """
    begin = torch.load(start, weights_only=True)['model']
    apart = moved = 0.0
    for key, wanted in theirs.items():
        prefix, _, name = key.partition('/')
        if prefix != kind or name.endswith(ZERO_GRADIENT):
            continue
        wanted = wanted.astype(np.float64)
        apart += np.square(ours[key] - wanted).sum()
        moved += np.square(wanted - begin[name].numpy()).sum()
    return float(np.sqrt(apart / moved))


def compare(folder, accumulation, python=None):
    """Train all three: the official package, this one, and this one led by it.

    Returns:
        Tuple of what they recorded; the last one selected the tokens that the official
        package had selected.
    """
    theirs = train_official(folder, accumulation, python)
    ours = train(folder, accumulation)
    return theirs, ours, train(folder, accumulation, theirs['tokens'])


def table(theirs, ours, led, rows=20):
    """The curves as text, and where they begin to differ."""
    curves = total(theirs), total(ours), total(led)
    apart = difference(curves[1], curves[0]), difference(curves[2], curves[0])
    steps = len(curves[0])
    shown = sorted(
        {0, *range(rows // 2), *range(0, steps, -(-steps // rows)), steps - 1}
    )
    lines = [
        f'{"step":>5}{"size":>6}{"official":>11}{"this":>11}{"difference":>12}'
        f'{"same tokens":>13}{"difference":>12}'
    ]
    for i in shown:
        official, own, same = (curve[i] for curve in curves)
        lines.append(
            f'{i + 1:>5}{theirs["sizes"][i]:>6}{official:>11.5f}{own:>11.5f}'
            f'{apart[0][i]:>12.1e}{same:>13.5f}{apart[1][i]:>12.1e}'
        )
    for title, differences in zip(('this', 'same tokens'), apart, strict=True):
        first = {bound: first_beyond(differences, bound) for bound in (1e-5, 1e-3)}
        lines.append(
            f'{title}: beyond 1e-5 from step {first[1e-5]}, beyond 1e-3 from step '
            f'{first[1e-3]}, at most {differences.max():.1e}'
        )
    rates = np.abs(np.sort(ours['rates']) - np.sort(theirs['rates'])).max()
    lines.append(f'learning rates of all groups differ by at most {rates:.1e}')
    return '\n'.join(lines)


def plot(path, theirs, ours, led):
    """Draw the curves, averaged over an epoch, and their differences."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout='constrained')
    left, right = figure.subplots(1, 2)
    curves = dict(official=theirs, this=ours)
    steps = np.arange(1, len(total(theirs)) + 1)
    for (name, found), style in zip(curves.items(), ('-', '--'), strict=True):
        left.plot(steps, total(found), style, label=name)
    left.set(xlabel='iteration', ylabel='loss (sizes change from step to step)')
    for name, found in {'this': ours, 'this, same tokens': led}.items():
        apart = difference(total(found), total(theirs))
        right.semilogy(steps, np.maximum(apart, 1e-10), label=name)
    right.set(xlabel='iteration', ylabel='difference from official (relative)')
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
