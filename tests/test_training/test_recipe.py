"""All parts of the recipe together, in a run of mmengine's Runner."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from tests import factory
from tests.runs import run_name

from .test_val_loss import MMDETS_ORDER, loader

TRAIN = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(factory.SIDE, factory.SIDE), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]


def cfg(folder, work_dir, **changes):
    train = loader(folder, TRAIN, batch_size=1)
    train['dataset'].update(test_mode=False)
    train['sampler'].update(shuffle=True)
    base = dict(
        default_scope='mmdet',
        model=factory.model_config(
            **{'backbone.frozen_stages': 1, 'backbone.drop_path_rate': 0.1}
        ),
        work_dir=str(work_dir),
        experiment_name=run_name(),
        train_dataloader=train,
        val_dataloader=loader(folder, MMDETS_ORDER),
        val_evaluator=dict(
            type='CocoMetric', ann_file=str(folder / 'annotations.json'), metric='bbox'
        ),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        val_cfg={},
        optim_wrapper=dict(
            constructor='RFDETROptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
            clip_grad=dict(max_norm=0.1),
            accumulative_counts=2,
        ),
        param_scheduler=dict(
            type='RFDETRLR', preset='cosine', warmup=1, convert_to_iter_based=True
        ),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', interval=1, save_best='loss'),
        ),
        custom_hooks=[
            dict(type='RFDETREMAHook', evaluate_base=True),
            dict(type='RFDETRDropScheduleHook'),
            dict(type='RFDETRValLossHook'),
        ],
        randomness=dict(seed=0),
    )
    return Config(copy.deepcopy(dict(base, **changes)))


ERRORS = (
    'class_error',
    'd0.cardinality_error',
    'cardinality_error',
    'enc_cardinality_error',
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recipe')
    factory.write_coco(folder / 'data', range(9))
    runner = Runner.from_cfg(cfg(folder / 'data', folder / 'work'))
    rates = []
    stock = runner.call_hook

    def call_hook(name, **kwargs):
        stock(name, **kwargs)
        if name == 'before_train_iter':
            rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    runner.call_hook = call_hook
    start = copy.deepcopy(runner.model.state_dict())
    runner.train()
    return folder, runner, start, rates


def test_rates_follow_the_schedule(trained):
    _, runner, _, rates = trained
    (scheduler,) = runner.param_schedulers
    # Four epochs of nine batches, two of which make a step: some cross epochs.
    assert scheduler.total_steps == 18
    assert scheduler.warmup_steps == 4
    expected = [1e-4 * scheduler.factor(iteration // 2) for iteration in range(36)]
    assert rates == pytest.approx(expected)
    assert expected[0] == 0 and expected[8] == 1e-4


def test_frozen_parameters_stay_and_all_others_move(trained):
    _, runner, start, _ = trained
    groups = runner.optim_wrapper.optimizer.param_groups
    optimised = {id(p) for group in groups for p in group['params']}
    for name, parameter in runner.model.named_parameters():
        frozen = name.startswith(
            (
                'backbone.patch_embed',
                'backbone.cls',
                'backbone.pos',
                'backbone.blocks.0',
            )
        )
        assert (id(parameter) in optimised) is not frozen, name
        if frozen:
            assert torch.equal(parameter, start[name]), name
        elif not name.endswith('qkv.bias'):  # keys have no gradient but rounding
            assert not torch.equal(parameter, start[name]), name


def test_validation_logs_losses_and_both_sets_of_weights(trained):
    _, runner, _, _ = trained
    logged = runner.message_hub.log_scalars
    for name in ('val/loss', 'val/d0.loss_cls', 'val/coco/bbox_mAP'):
        assert name in logged
    assert 'val/base/coco/bbox_mAP' in logged
    for name in ERRORS:
        assert {f'train/{name}', f'val/{name}'} <= set(logged)


def test_drop_path_is_spread(trained):
    _, runner, _, _ = trained
    blocks = runner.model.backbone.blocks
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx([0, 0.1])


def test_the_log_tells_of_groups_and_of_the_average(trained):
    folder, _, _, _ = trained
    (log,) = (folder / 'work').glob('*/*.log')
    text = log.read_text()
    assert text.count('groups of the optimizer') == 1
    assert 'Validation of the EMA weights after 18 updates' in text


def test_auto_scale_lr_scales_every_group(trained, tmp_path):
    folder, runner, _, _ = trained
    scaled = Runner.from_cfg(
        cfg(
            folder / 'data',
            tmp_path / 'scaled',
            auto_scale_lr=dict(enable=True, base_batch_size=4),
            train_cfg=dict(by_epoch=True, max_epochs=1),
        )
    )
    scaled.train()
    for one, other in zip(
        scaled.optim_wrapper.optimizer.param_groups,
        runner.optim_wrapper.optimizer.param_groups,
        strict=True,
    ):
        assert one['initial_lr'] == pytest.approx(other['initial_lr'] / 4)


def test_errors_are_logged_and_are_no_part_of_the_loss():
    model = factory.build_model().train()
    data = model.data_preprocessor(factory.batch((2, 1)), True)
    losses = model(**data, mode='loss')
    loss, log_vars = model.parse_losses(losses)
    assert loss.item() == pytest.approx(sum(v.item() for v in losses.values()))
    names = {name for name in log_vars if 'error' in name}
    assert names == set(ERRORS)
    assert not names & set(losses)
    assert not any(log_vars[name].requires_grad for name in names)
