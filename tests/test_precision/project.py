"""A run of two steps and a validation whose precision is pinned."""

import copy

from mmengine.config import Config
from mmengine.runner import Runner

from tests import factory
from tests.runs import run_name


def project_config(folder, work_dir, device_type='cpu', dtype='bfloat16'):
    """A whole config, its precision pinned in both places.

    Args:
        folder: of pictures and annotations.
        work_dir: for logs and checkpoints.
        device_type: of the policy.
        dtype: of the policy.
    """
    precision = dict(device_type=device_type, dtype=dtype)
    config = factory.project_config(
        folder,
        work_dir,
        model=dict(precision=precision),
        train_dataloader=dict(sampler=dict(type='InfiniteSampler')),
        train_cfg=dict(
            _delete_=True, type='IterBasedTrainLoop', max_iters=2, val_interval=2
        ),
        optim_wrapper=precision,
        default_hooks=dict(
            checkpoint=dict(by_epoch=False, interval=2),
        ),
    )
    config.pop('param_scheduler')
    config.default_hooks.pop('ema')
    return config


def run(config, mode, *overrides):
    """Run ``config`` and return the runner.

    Args:
        config: what :func:`project_config` made; not modified.
        mode: ``'train'``, ``'val'`` or ``'test'``.
        overrides: dicts of dotted keys, as ``--cfg-options`` gives them; in order.
    """
    config = Config(copy.deepcopy(config.to_dict()))
    config.experiment_name = run_name()
    for override in overrides:
        config.merge_from_dict(override)
    runner = Runner.from_cfg(config)
    getattr(runner, mode)()
    return runner
