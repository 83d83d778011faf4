"""A model of one weight, and a runner that trains it in no time."""

import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from tests.runs import run_name


class Numbers(Dataset):
    metainfo = {}

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor([float(index)])


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer('seen', torch.zeros(1))

    def forward(self, inputs, mode):
        if mode == 'loss':
            self.seen += 1
            return dict(loss=(self.weight * inputs.mean() - 1).square().sum())
        return [self.weight.detach().clone()] * len(inputs)

    def train_step(self, data, optim_wrapper):
        with optim_wrapper.optim_context(self):
            loss = self(data, 'loss')['loss']
        optim_wrapper.update_params(loss)
        return dict(loss=loss.detach())

    def val_step(self, data):
        return self(data, 'predict')

    test_step = val_step


class Weight(BaseMetric):
    """The weight that made the predictions."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        assert len(results) == len(Numbers())
        return dict(weight=float(results[0]))


class Scripted(BaseMetric):
    """Metrics of one validation after the other, as given."""

    default_prefix = 'coco'

    def __init__(self, scores):
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(bbox_mAP=next(self.scores))


def loader():
    return dict(
        dataset=Numbers(),
        sampler=dict(type=DefaultSampler, shuffle=False),
        batch_size=1,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
    )


def runner(
    work_dir,
    hooks=None,
    accumulation=1,
    epochs=2,
    metric=None,
    loop='EpochBasedTrainLoop',
    train_cfg=None,
    scheduler=None,
    model=None,
    optimizer=None,
    experiment_name=None,
    **cfg,
):
    evaluator = Evaluator(metric or Weight())
    return Runner(
        model or Toy(),
        str(work_dir),
        train_dataloader=loader(),
        val_dataloader=loader(),
        test_dataloader=loader(),
        train_cfg=train_cfg or dict(type=loop, max_epochs=epochs),
        val_cfg={},
        test_cfg={},
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        optim_wrapper=dict(
            optimizer=optimizer or dict(type='SGD', lr=0.01),
            accumulative_counts=accumulation,
        ),
        param_scheduler=scheduler or dict(type='RFDETRLR', convert_to_iter_based=True),
        custom_hooks=hooks or [dict(type='RFDETREMAHook')],
        default_scope='mmdet',
        # mmengine writes the seed of a resumed run into its default, for all runs.
        randomness=dict(seed=None),
        experiment_name=experiment_name or run_name(),
        cfg=Config({}),
        **cfg,
    )
