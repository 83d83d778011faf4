"""The smallest task: a number of every object, found out by a head of its own."""

import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_rfdetr.losses.pairs import sum_pairs
from mmdet_rfdetr.models import TaskHead
from tests import parity


class NumberHead(TaskHead):
    """One number of every query.

    Args:
        loss_number: config of its loss; it stands in ``bbox_head``.
        number_weight: weight of the distance of numbers in the matching; it stands in
            ``train_cfg.assigner``.
        **options: those of every task head.
    """

    name = 'number_head'
    bbox_head_keys = ('loss_number',)
    assigner_keys = ('number_weight',)

    def __init__(self, *, loss_number, number_weight=1.0, **options):
        super().__init__(**options)
        self.loss_number = MODELS.build(loss_number)
        self.number_weight = number_weight
        self.fc = nn.Linear(self.sizes.embed_dims, 1)

    def forward(self, stages, features):
        states = [*features.hidden_states]
        if features.tokens is not None:
            states.append(features.tokens)
        return stages.with_task(self.name, [self.fc(state)[..., 0] for state in states])

    def outputs(self, stages, stage):
        return dict(pred_numbers=stages.tasks[self.name][stage].float())

    def get_targets(self, batch_gt_instances, batch_img_metas):
        return torch.cat([instances.numbers for instances in batch_gt_instances])

    def add_costs(self, costs, stages, targets, objects):
        found = torch.cat(stages.tasks[self.name], dim=1).float()
        true = targets.tasks[self.name][objects]
        distance = (found[:, None] - true[:, :, None]).abs()
        costs.add_(distance, alpha=self.number_weight)

    def loss(self, stages, targets, matches):
        found = torch.cat(stages.tasks[self.name], dim=1).float()
        found = found[matches.images, matches.rows]
        true = targets.tasks[self.name][matches.targets]
        return dict(loss_number=sum_pairs(self.loss_number, found, true, matches))

    def add_results(self, instances, made, image, queries, img_meta, *, rescale):
        instances.numbers = made[image, queries].float()


def with_numbers(config, **assigner):
    """Add the head to the config of a model."""
    config['number_head'] = dict(type=NumberHead)
    config['bbox_head']['loss_number'] = dict(type='mmdet.L1Loss', loss_weight=3.0)
    config['train_cfg']['assigner'].update(assigner)
    return config


def numbered_batch(*sizes, counts, **options):
    """Images and samples whose objects have numbers."""
    images, samples = parity.rule_batch(sizes, counts=counts, **options)
    generator = torch.Generator().manual_seed(0)
    for sample, count in zip(samples, counts, strict=True):
        sample.gt_instances.numbers = torch.randn(count, generator=generator)
    return images, samples
