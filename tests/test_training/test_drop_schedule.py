from types import SimpleNamespace

import pytest
from mmdet.registry import HOOKS, MODELS
from torch import nn

from ..fixtures import load_json, needs_fixtures

BLOCKS = 12


def runner(drop_path=0.0, dropout=0.0, epochs=3, epoch_length=4, accumulation=1):
    """What the hook reads of a runner: a ViT of 12 blocks and a decoder."""
    backbone = MODELS.build(
        dict(
            type='RFDETRBackbone',
            embed_dims=8,
            num_heads=1,
            patch_size=4,
            num_windows=1,
            out_indices=(BLOCKS,),
            pos_embed_size=4,
            drop_path_rate=drop_path,
        )
    )
    model = nn.Module()
    model.backbone = backbone
    model.decoder = nn.Sequential(nn.Linear(2, 2), nn.Dropout(dropout))
    model.task_head = nn.Sequential(nn.Dropout(dropout / 2))
    return SimpleNamespace(
        model=model,
        optim_wrapper=SimpleNamespace(_accumulative_counts=accumulation),
        train_dataloader=range(epoch_length),
        max_iters=epochs * epoch_length,
        iter=0,
    )


def start(run, **cfg):
    hook = HOOKS.build(dict(type='RFDETRDropScheduleHook', **cfg))
    hook.before_train(run)
    return hook


def drop_paths(run):
    return [
        getattr(block.drop_path, 'drop_prob', None)
        for block in run.model.backbone.blocks
    ]


def history(run, **cfg):
    """(rate of the last block, dropout) at each iteration."""
    hook = start(run, **cfg)
    rates = []
    for iteration in range(run.max_iters):
        run.iter = iteration
        hook.before_train_iter(run, iteration)
        rates.append((drop_paths(run)[-1], run.model.decoder[1].p))
    return rates


@needs_fixtures
@pytest.mark.parametrize('rate', ['0.0', '0.1', '0.25'])
def test_the_rate_is_spread_over_the_blocks(rate):
    official = load_json('schedules')['drop_path'][rate]
    run = runner(drop_path=float(rate))
    assert drop_paths(run) == official['at_build']
    hook = start(run)
    hook.before_train_iter(run, 0)
    assert drop_paths(run) == official['after_schedule_step']


@needs_fixtures
@pytest.mark.parametrize(
    ('name', 'cfg'),
    [
        ('standard', {}),
        ('early_linear', dict(mode='early', cutoff_epoch=2, schedule='linear')),
    ],
)
def test_rates_of_all_steps_are_the_official_ones(name, cfg):
    official = load_json('schedules')['drop_path'][f'per_step_rate_{name}']['values']
    rates = history(runner(drop_path=0.1, dropout=0.1), **cfg)
    assert [rate for rate, _ in rates] == pytest.approx(official, rel=1e-6)
    assert [rate for _, rate in rates] == pytest.approx(official, rel=1e-12)


@pytest.mark.parametrize(
    ('mode', 'expected'),
    [('early', [0.2] * 4 + [0.0] * 8), ('late', [0.0] * 4 + [0.2] * 8)],
)
def test_rates_change_at_the_cutoff_epoch(mode, expected):
    run = runner(dropout=0.2)
    rates = history(run, mode=mode, cutoff_epoch=1)
    assert [rate for _, rate in rates] == expected
    # A task head has rates of its own, and the same schedule.
    assert run.model.task_head[0].p == expected[-1] / 2


def test_steps_are_optimizer_steps():
    one = history(runner(dropout=0.2), mode='early', cutoff_epoch=2, schedule='linear')
    three = history(
        runner(dropout=0.2, epoch_length=12, accumulation=3),
        mode='early',
        cutoff_epoch=2,
        schedule='linear',
    )
    assert three[::3] == three[2::3] == one


def test_spread_over_more_blocks_than_are_built():
    run = runner(drop_path=0.26)
    start(run, depth=14).before_train_iter(run, 0)
    assert drop_paths(run)[-1] == pytest.approx(0.26 * 11 / 13, rel=1e-6)


def test_a_backbone_of_another_kind_keeps_its_own_rates():
    run = runner(dropout=0.2)
    run.model.backbone = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Dropout(0.1))
    start(run, mode='late', cutoff_epoch=1).before_train_iter(run, 0)
    assert run.model.backbone[1].p == 0.1
    assert run.model.decoder[1].p == 0


def test_student_and_teacher_follow_one_schedule():
    run = runner(drop_path=0.26)
    student, teacher = run.model, runner(drop_path=0.26).model
    run.model = nn.ModuleDict(dict(student=student, teacher=teacher))
    hook = start(run, mode='late', cutoff_epoch=1)
    for iteration, rate in ((0, 0.0), (4, 0.26)):
        run.iter = iteration
        hook.before_train_iter(run, iteration)
        for model in (student, teacher):
            last = model.backbone.blocks[-1].drop_path
            assert last.drop_prob == pytest.approx(rate)


def test_a_model_of_another_kind_keeps_its_own_rates():
    run = runner()
    run.model = nn.Sequential(nn.Dropout(0.1))
    start(run, mode='late', cutoff_epoch=1).before_train_iter(run, 0)
    assert run.model[0].p == 0.1


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(mode='middle'), "mode='middle'"),
        (dict(mode='early', schedule='cosine'), "schedule='cosine'"),
        (dict(mode='late', schedule='linear'), "mode='late' with schedule='linear'"),
    ],
)
def test_mistakes_in_the_config(cfg, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='RFDETRDropScheduleHook', **cfg))
