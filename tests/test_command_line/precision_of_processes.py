"""Train in one of several processes and write down what the model ran in."""

import gc
import json

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.runner import Runner
from torch import distributed

from tests.test_precision.recorder import recorded


def train_and_record(folder):
    torch.set_num_threads(1)
    with recorded() as seen:
        Runner.from_cfg(Config.fromfile(folder / 'config.py')).train()
    states = [str(state) for state, _ in seen]
    (folder / f'rank{get_rank()}.json').write_text(json.dumps(states))
    gc.collect()  # the wrapper lies in a cycle, and holds the group
    distributed.destroy_process_group()
