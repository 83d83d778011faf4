"""Train a config in several processes, as a launcher does."""

import time

import torch

from mmdet_rfdetr.command_line import running as cli
from tests.interpreter import fork_together

# Seconds, in the config. Only a process that stops answering makes others wait so long.
TIMEOUT = 20


def train_and_check(cfg, hook, check):
    """What each of the processes does."""
    torch.set_num_threads(1)

    def action(runner):
        runner.register_hook(hook, 'HIGHEST')
        runner.train()
        check(runner)

    cli.run(cfg, action, trust_checkpoint=False)


def train(cfg, hook, check=lambda runner: None, processes=2):
    """Train in processes of which one may hang for ever.

    Returns:
        The exit codes, what each process said, and the seconds that it took.
    """
    cfg.launcher = 'pytorch'
    stops = getattr(hook, 'kind', '') == 'stops'
    timeout = TIMEOUT if stops else 600
    distributed = dict(backend='gloo', timeout=timeout)
    cfg.merge_from_dict({'env_cfg.dist_cfg': distributed})
    begin = time.monotonic()
    codes, said = fork_together(
        train_and_check,
        *(cfg, hook, check),
        folder=cfg.work_dir,
        processes=processes,
        stops=stops,
    )
    return codes, said, time.monotonic() - begin
