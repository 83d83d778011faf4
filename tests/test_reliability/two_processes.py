"""What each of two processes computes; ``test_two_processes.py`` starts them."""

import torch
from mmdet.registry import MODELS
from mmengine.dist import get_rank, init_dist
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope

import mmdet_rfdetr  # noqa: F401  (before anything that needs its parts)
from mmdet_rfdetr.command_line.running import leave_process_group
from tests.factory import SIDE, batch, model_config

# Objects in each image of each process.
CASES = {
    'objects everywhere': ((2, 3), (1, 4)),
    'a process without objects': ((2, 3), (0, 0)),
    'an uneven last batch': ((2, 3), (1,)),
    'no objects at all': ((0, 0), (0, 0)),
}
TASKS = ('detection', 'segmentation')


def fixed_points(name, shape, device):
    """The same points for each pair: they do not depend on who else is in the batch."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    return torch.rand((1, *shape[1:]), generator=generator).expand(shape)


def build(task):
    """A tiny model; the same in each process, and nothing in it starts at zero."""
    cfg = model_config()
    if task == 'segmentation':
        cfg['mask_head'] = dict(type='RFDETRMaskHead')
        cfg['bbox_head']['loss_mask'] = dict(type='RFDETRPointMaskLoss')
        cfg['data_preprocessor']['pad_mask'] = False
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if task == 'segmentation':
        model.mask_head.points = model.mask_head.loss_mask.points = fixed_points
    return model


def part_of(case, rank):
    """The batch of one process."""
    data = batch(CASES[case][rank], seed=rank)
    for sample in data['data_samples']:
        count = len(sample.gt_instances)
        generator = torch.Generator().manual_seed(10 * rank + count)
        masks = torch.rand(count, SIDE, SIDE, generator=generator) > 0.5
        sample.gt_instances.masks = masks
    return data


def joined(case):
    """The batches of both processes as one."""
    parts = [part_of(case, rank) for rank in (0, 1)]
    return {key: parts[0][key] + parts[1][key] for key in parts[0]}


def gradients(bare, wrapped, data):
    """The loss of a batch, and the gradient of each parameter."""
    for parameter in bare.parameters():
        parameter.grad = None
    data = bare.data_preprocessor(data, True)
    loss, _ = bare.parse_losses(wrapped(**data, mode='loss'))
    loss.backward()
    return loss.detach(), {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in bare.named_parameters()
    }


def write_gradients(folder):
    """Write the losses and the averaged gradients of all cases to a file."""
    torch.set_num_threads(1)
    init_dist('pytorch', backend='gloo')
    results = {}
    for task in TASKS:
        model = build(task)
        # In this form a parameter without gradient makes the next step fail.
        wrapped = MMDistributedDataParallel(
            module=model, broadcast_buffers=False, find_unused_parameters=False
        )
        for case in CASES:
            data = part_of(case, get_rank())
            results[task, case] = gradients(model, wrapped, data)
    torch.save(results, folder / f'rank{get_rank()}.pth')
    del wrapped
    leave_process_group()
