"""What the processes of a run need to have in common when it begins."""

import zlib

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.runner import Runner

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
    checksum = 0
    for parameter in runner.model.parameters():
        values = parameter.detach().cpu().flatten().view(torch.uint8)
        checksum = zlib.crc32(values.numpy(), checksum)
    own = (
        f'epoch {runner.epoch}, iteration {runner.iter}, '
        f'{len(runner.train_dataloader.dataset)} images, '
        f'weights with the checksum {checksum:08x}'
    )
    found = [*dict.fromkeys(all_gather_object(own))]
    if len(found) > 1:
        raise ExplainedError(
            f'The processes of this run do not begin alike, but at {"; ".join(found)}: '
            'give all machines the same data, and the same files to --resume or '
            'load_from, for example by a work_dir on storage that they share.'
        )
