"""Shipped configs of tasks, shrunk so that they train within seconds."""

import gc

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_rfdetr import config, set_image_size
from tests.interpreter import fork_together


def shrunk_config(name, folder, **changes):
    """One epoch on a CPU in float32, on a folder with ``annotations.json``.

    Args:
        name: of the shipped config.
        folder: with the pictures, too; the work folder is ``work`` in it.
        **changes: what else is merged, ``dataset`` into all three.
    """
    cfg = Config.fromfile(config(name))
    set_image_size(cfg, 96)
    place = dict(ann_file='annotations.json', data_prefix=dict(img=''))
    dataset = dict(data_root=str(folder), **place, **changes.pop('dataset'))
    loader = dict(
        batch_size=2, num_workers=0, persistent_workers=False, dataset=dataset
    )
    metric = dict(ann_file=str(folder / 'annotations.json'))
    decoder = dict(self_attn_heads=2, cross_attn_heads=2, feedforward_channels=32)
    cfg.merge_from_dict(
        dict(
            work_dir=str(folder / 'work'),
            model=dict(
                precision=None,
                num_queries=8,
                num_groups=2,
                backbone=dict(embed_dims=24, num_heads=2, out_indices=(1, 2)),
                neck=dict(in_channels=[24, 24], out_channels=16, num_blocks=1),
                decoder=dict(num_layers=2, **decoder),
                test_cfg=dict(max_per_img=6),
            ),
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=metric,
            test_evaluator=metric,
            optim_wrapper=dict(device_type='cpu', dtype='float32'),
            train_cfg=dict(max_epochs=1),
            custom_hooks=[dict(type='RFDETRValLossHook')],
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


def assert_two_processes_train(cfg, folder):
    """Two steps of one picture in each; all parameters get gradients in both."""
    cfg.train_dataloader.batch_size = 1
    cfg.launcher = 'pytorch'
    # The threads of the other engine do not survive the fork.
    cfg.val_evaluator.engine = 'pycocotools'
    assert not cfg.get('find_unused_parameters')
    cfg.dump(folder / 'config.py')
    codes, said = fork_together(_train, folder, folder=folder)
    assert codes == [0, 0], said
    assert not any('UserWarning' in text for text in said)
    checkpoint = torch.load(folder / 'work' / 'epoch_1.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2
    moments = checkpoint['optimizer']['state']
    parameters = sum(len(g['params']) for g in checkpoint['optimizer']['param_groups'])
    assert len(moments) == parameters


def _train(folder):
    torch.set_num_threads(1)
    Runner.from_cfg(Config.fromfile(folder / 'config.py')).train()
    gc.collect()  # the wrapper lies in a cycle, and holds the group
    torch.distributed.destroy_process_group()
