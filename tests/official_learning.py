"""The official package's side of the learning comparison.

Its own Lightning module, optimizer, schedule, clipping, multi-scale batches and moving
average, in Lightning's trainer. Needs ``rfdetr[train]==1.11.2``.

``python -m tests.official_learning FOLDER ACCUMULATION`` writes ``start.pth`` (an
official checkpoint of the weights before the first step) and ``official.npz``.
"""

import contextlib
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from tests import learning_case, official

CASE = dict(model=learning_case.MODEL, seed=learning_case.SEED)


def configs(folder, accumulation):
    """The official configurations: defaults but for sizes and length."""
    from rfdetr import config

    model = config.RFDETRNanoConfig(pretrain_weights=None, device='cpu')
    for name, value in learning_case.MODEL.items():
        if name in type(model).model_fields:
            object.__setattr__(model, name, value)
    train = config.TrainConfig(
        dataset_dir=str(folder),
        output_dir=str(folder),
        accelerator='cpu',
        grad_accum_steps=accumulation,
        tensorboard=False,
        **learning_case.SETTINGS,
    )
    return model, train


class Recorder:
    """What the trainer's callbacks see: terms, rates and gradient norms."""

    def __init__(self, module):
        self.module = module
        self.terms, self.rates, self.norms, self.sizes = [], [], [], []
        criterion = module.criterion.forward

        def recorded(outputs, targets):
            losses = criterion(outputs, targets)
            weights = module.criterion.weight_dict
            self.terms.append(
                {
                    name: float(value.detach() * weights.get(name, 1))
                    for name, value in losses.items()
                }
            )
            return losses

        module.criterion.forward = recorded

    def callback(self):
        from pytorch_lightning import Callback

        recorder = self

        class Record(Callback):
            def on_train_batch_start(self, trainer, module, batch, batch_idx):
                recorder.rates.append(
                    [group['lr'] for group in trainer.optimizers[0].param_groups]
                )

            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                recorder.sizes.append(batch[0].tensors.shape[-1])

            def on_before_optimizer_step(self, trainer, module, optimizer):
                norms = [
                    parameter.grad.norm()
                    for parameter in module.parameters()
                    if parameter.grad is not None
                ]
                recorder.norms.append(float(torch.stack(norms).norm()))

        return Record()


def batches():
    """The batches of an epoch as the official model takes them."""
    from rfdetr.utilities.tensors import NestedTensor

    for index in range(learning_case.BATCHES):
        pictures, objects = learning_case.batch(index)
        mask = torch.zeros(len(pictures), *pictures.shape[-2:], dtype=torch.bool)
        targets = [
            {name: torch.from_numpy(value) for name, value in found.items()}
            for found in objects
        ]
        yield NestedTensor(torch.from_numpy(pictures), mask), tuple(targets)


def build(folder, accumulation):
    """The official module with the model of the case, and its first checkpoint."""
    from rfdetr.training import module_model

    model_config, train_config = configs(folder, accumulation)
    torch.manual_seed(learning_case.SEED)
    model, criterion, _ = official.construct(CASE)
    original = module_model.build_model_from_config
    module_model.build_model_from_config = lambda *args: model
    module = module_model.RFDETRModelModule(model_config, train_config)
    module_model.build_model_from_config = original
    module.criterion = criterion
    arguments = {
        name: learning_case.MODEL[name]
        for name in ('num_queries', 'group_detr', 'patch_size')
    }
    start = dict(model=model.state_dict(), args=arguments)
    torch.save(start, folder / 'start.pth')
    return module, train_config


def train(folder, accumulation):
    """Train as the case says.

    Returns:
        Names to arrays: ``term/*`` and ``rates`` of each iteration, ``norms`` of each
        optimizer step, and the weights at the end, ``weight/*`` and ``average/*``.
    """
    from pytorch_lightning import Trainer
    from rfdetr.training.callbacks import RFDETREMACallback

    module, settings = build(folder, accumulation)
    recorder = Recorder(module)
    average = RFDETREMACallback(
        decay=settings.ema_decay,
        tau=settings.ema_tau,
        update_interval_steps=settings.ema_update_interval,
    )
    epoch = list(batches())
    trainer = Trainer(
        max_epochs=settings.epochs,
        accelerator='cpu',
        accumulate_grad_batches=settings.grad_accum_steps,
        gradient_clip_val=settings.clip_max_norm,
        callbacks=[average, recorder.callback()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with selections() as tokens:
        trainer.fit(module, Epochs(epoch))
    names = recorder.terms[0]
    found = {
        f'term/{name}': np.array([terms[name] for terms in recorder.terms])
        for name in names
    }
    found.update(
        rates=np.array(recorder.rates),
        norms=np.array(recorder.norms),
        sizes=np.array(recorder.sizes),
        tokens=by_group(tokens, len(recorder.terms)),
    )
    averaged = average._average_model.module.model
    for kind, model in (('weight', module.model), ('average', averaged)):
        found.update(
            (f'{kind}/{name}', value.numpy())
            for name, value in model.state_dict().items()
            if value.numel()
        )
    return found


@contextlib.contextmanager
def selections():
    """Record which tokens every top-k selects."""
    tokens = []
    topk = torch.topk

    def recording(*args, **kwargs):
        result = topk(*args, **kwargs)
        tokens.append(result[1].numpy())
        return result

    torch.topk = recording
    yield tokens
    torch.topk = topk


def by_group(tokens, steps):
    """Selected tokens (steps, G, B, k), of one call a step or of one a group."""
    if tokens[0].ndim == 3:
        return np.stack(tokens)
    calls = len(tokens) // steps
    return np.stack(
        [np.stack(tokens[calls * s : calls * (s + 1)]) for s in range(steps)]
    )


class Epochs:
    """The batches again in every epoch, copied: training resizes them in place."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        from rfdetr.utilities.tensors import NestedTensor

        for samples, targets in self.batches:
            yield NestedTensor(samples.tensors, samples.mask), targets


if __name__ == '__main__':
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    path = Path(sys.argv[1])
    np.savez(path / 'official.npz', **train(path, int(sys.argv[2])))
