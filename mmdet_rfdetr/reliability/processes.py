"""What the processes of a run need to have in common when it begins."""

import zlib

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import ExplainedError


def require_same_start(runner: Runner) -> None:
    """Stop processes that would begin at different places, or with different weights.

    Each of them looks for the checkpoint to go on from, and reads it, by itself. On
    machines that do not share the work folder they find different ones, and nothing
    makes their weights equal again.

    Raises:
        ExplainedError: saying where each of them would begin.
    """
    if get_world_size() == 1:
        return
    own = (
        f'epoch {runner.epoch}, iteration {runner.iter}, '
        f'{len(runner.train_dataloader.dataset)} images'
    )
    # Other ways to train keep different parts of the weights in each process.
    if isinstance(runner.model, DistributedDataParallel):
        own += f', weights with the checksum {_checksum(runner.model):08x}'
    found = all_gather_object(own)
    other = next((rank for rank, text in enumerate(found) if text != found[0]), None)
    if other is not None:
        raise ExplainedError(
            'The processes of this run do not begin alike, process 0 at '
            f'{found[0]}, and process {other} at {found[other]}: give all machines the '
            'same data, and the same files to --resume or load_from, for example by a '
            'work_dir on storage that they share.'
        )


def _checksum(model: nn.Module) -> int:
    """A number that changes with any bit of the parameters."""
    checksum = 0
    for parameter in model.parameters():
        values = parameter.detach().cpu().flatten().view(torch.uint8)
        checksum = zlib.crc32(values.numpy(), checksum)
    return checksum
