"""What was trained is compared with what will be, before a run is resumed."""

import shutil

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import FlexibleRunner
from torch import nn

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.errors import CheckpointError, ResumeError, SettingError
from tests.toy import Numbers, Scripted, Toy, loader, runner

ADAMW = dict(type='AdamW', lr=0.01, weight_decay=0.1)
COSINE = dict(type='CosineAnnealingLR', convert_to_iter_based=True)
STOPPING = dict(
    type='EarlyStoppingHook', monitor='coco/bbox_mAP', rule='greater', patience=1
)


class Sized(Toy):
    """Parameters of several sizes, in an order."""

    def __init__(self, **sizes):
        super().__init__()
        del self.weight
        for name, size in sizes.items():
            setattr(self, name, nn.Parameter(torch.ones(size)))

    def forward(self, inputs, mode):
        result = super().forward(inputs, mode)
        if mode == 'loss':
            result['loss'] += sum(value.square().sum() for value in self.parameters())
        return result


def build(
    folder,
    source=None,
    epochs=4,
    scores=None,
    resume_settings='checkpoint',
    out_dir=None,
    **settings,
):
    """A run, which resumes the second epoch of ``source`` if that is given."""
    settings = dict(
        dict(optimizer=ADAMW, loop='RFDETRTrainLoop', model=Sized(weight=1, more=2)),
        **settings,
    )
    hook = dict(
        type='RFDETRCheckpointHook',
        interval=1,
        save_best='coco/bbox_mAP',
        rule='greater',
        max_keep_ckpts=2,
        resume_settings=resume_settings,
        out_dir=out_dir,
    )
    if scores is None:
        scores = (0.1, 0.3, 0.2, 0.4)[0 if source is None else 2 :]
    run = runner(
        folder,
        epochs=epochs,
        metric=Scripted(scores),
        default_hooks=dict(checkpoint=hook),
        **settings,
    )
    if source is not None:
        run._resume, run._load_from = True, str(source / 'epoch_2.pth')
    return run


@pytest.fixture(scope='module', autouse=True)
def classes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Numbers, 'metainfo', dict(classes=('cat', 'dog')))
        yield


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    build(folder, epochs=2).train()
    return folder


@pytest.fixture(scope='module')
def by_mmengine(trained, tmp_path_factory):
    """A checkpoint that does not say what its states belong to."""
    folder = tmp_path_factory.mktemp('by_mmengine')
    checkpoint = torch.load(trained / 'epoch_2.pth')
    del checkpoint['meta']['trained_with']
    torch.save(checkpoint, folder / 'epoch_2.pth')
    return folder


@pytest.fixture(scope='module')
def with_cosine(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cosine')
    build(folder, epochs=2, scheduler=COSINE).train()
    return folder


def warnings_of(run):
    lines = []
    run.logger.warning = lines.append
    run.train()
    return lines


class Rates(Hook):
    def __init__(self, seen):
        self.seen = seen

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(rate(runner))


def rate(run):
    return run.optim_wrapper.optimizer.param_groups[0]['lr']


@pytest.mark.parametrize('source', ['trained', 'by_mmengine', 'with_cosine'])
def test_an_ordinary_resume_warns_of_nothing(source, tmp_path, request):
    scheduler = COSINE if source == 'with_cosine' else None
    run = build(
        tmp_path, request.getfixturevalue(source), epochs=2, scheduler=scheduler
    )
    assert [line for line in warnings_of(run) if 'is finished' not in line] == []


@pytest.mark.parametrize(
    'names, difference',
    [
        (('cat', 'dog', 'cow'), r"has \('cow',\) more"),
        (('dog', 'cat'), 'has another order'),
        (('cat', 'fox'), r"lacks \('dog',\)"),
    ],
)
def test_other_classes_are_refused(names, difference, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(Numbers, 'metainfo', dict(classes=names))
    file = trained / 'epoch_2.pth'
    with pytest.raises(ResumeError, match=f'{difference}.*load_from={file} and'):
        build(tmp_path, trained).train()
    # The advice is right: it trains.
    run = build(tmp_path, trained, epochs=2)
    run._resume = False
    run.train()
    assert run.epoch == 2


def test_joined_data_sets_have_one_list_of_classes(tmp_path, monkeypatch):
    """mmdet's ConcatDataset says what each of them says, if that differs."""
    classes = ('cat', 'dog')
    parts = [dict(classes=classes[:1], palette=[1]), dict(classes=classes)]
    monkeypatch.setattr(Numbers, 'metainfo', parts)
    build(tmp_path, epochs=2).train()
    checkpoint = load_checkpoint_file(str(tmp_path / 'epoch_2.pth'))
    assert checkpoint['meta']['dataset_meta'] == dict(classes=classes)
    assert warnings_of(build(tmp_path / 'next', tmp_path)) == []


OTHERS = {
    'size': (dict(model=Sized(weight=1, more=3)), r'more is \(2,\) .* and \(3,\) in'),
    'more': (
        dict(model=Sized(weight=1, more=2, most=2)),
        r'\(most\): most is missing in',
    ),
    'less': (dict(model=Sized(weight=1)), r'more is \(2,\) in .* and missing'),
    'order': (dict(model=Sized(more=2, weight=1)), 'has weight where that of .* more'),
    'type': (dict(optimizer=dict(type='SGD', lr=0.01)), 'AdamW, and this run has SGD'),
    'adam': (dict(optimizer=dict(type='Adam', lr=0.01)), 'AdamW, .* this run has Adam'),
}


@pytest.mark.parametrize('other', OTHERS)
def test_other_states_are_refused(other, trained, tmp_path):
    settings, difference = OTHERS[other]
    with pytest.raises(ResumeError, match=f'{difference}.*load_from='):
        build(tmp_path, trained, **settings).train()


def test_other_groups_are_refused(trained, tmp_path):
    """As many parameters, of the same sizes, in other groups."""
    run = build(tmp_path, trained)
    run.optim_wrapper['paramwise_cfg'] = dict(custom_keys=dict(more=dict(lr_mult=0.1)))
    with pytest.raises(ResumeError, match=r'2 parameters in 1 groups.* 2 in 2'):
        run.train()


def test_nothing_is_loaded_before(trained, tmp_path):
    run = build(tmp_path, trained, model=Sized(weight=1, more=3))
    with pytest.raises(ResumeError):
        run.train()
    (ema,) = (hook for hook in run.hooks if hasattr(hook, 'ema_model'))
    for model in (run.model, ema.ema_model.module):
        assert model.weight == 1


NEW = dict(optimizer=dict(ADAMW, lr=1e-6, weight_decay=0.2))


def test_what_the_checkpoint_overrides_is_logged(trained, tmp_path):
    run = build(tmp_path, trained, **NEW)
    (line,) = warnings_of(run)
    assert 'lr 0.01 (config: 1e-06)' in line
    assert 'weight_decay 0.1 (config: 0.2)' in line
    assert 'resume_settings=config' in line
    assert run.param_schedulers[0].base_values == [0.01]


def test_the_settings_of_the_config_can_be_asked_for(trained, tmp_path):
    run = build(tmp_path, trained, resume_settings='config', **NEW)
    assert warnings_of(run) == []
    assert run.param_schedulers[0].base_values == [1e-6]
    (group,) = run.optim_wrapper.optimizer.param_groups
    assert (group['initial_lr'], group['weight_decay']) == (1e-6, 0.2)
    # The moments of AdamW go on.
    state = run.optim_wrapper.optimizer.state_dict()['state'][0]
    assert state['step'] == 40


@pytest.mark.parametrize(
    'scheduler', ['RFDETRLR', 'CosineAnnealingLR', 'ExponentialLR']
)
def test_a_new_schedule_begins_at_the_present_place(scheduler, with_cosine, tmp_path):
    """As if it had been set from the start."""
    schedule = dict(type=scheduler, convert_to_iter_based=True)
    schedule |= dict(gamma=0.9) if scheduler == 'ExponentialLR' else {}
    rates = []
    for source, settings in ((None, 'checkpoint'), (with_cosine, 'config')):
        run = build(
            tmp_path / settings, source, scheduler=schedule, resume_settings=settings
        )
        rates.append([])
        run.register_hook(Rates(rates[-1]))
        assert warnings_of(run) == []
    whole, rest = rates
    assert rest == pytest.approx(whole[20:], rel=1e-12)


def test_a_new_schedule_that_follows_a_metric_begins_anew(with_cosine, tmp_path):
    plateau = dict(type='ReduceOnPlateauLR', monitor='coco/bbox_mAP', by_epoch=True)
    run = build(tmp_path, with_cosine, scheduler=plateau, resume_settings='config')
    assert warnings_of(run) == []
    assert rate(run) == ADAMW['lr']


def test_a_run_of_iterations_is_resumed_and_finished(tmp_path):
    def iterations(number, lr, source=None):
        run = build(
            tmp_path,
            train_cfg=dict(
                type='IterBasedTrainLoop', max_iters=number, val_interval=99
            ),
            scheduler=dict(type='RFDETRLR', by_epoch=False),
            optimizer=dict(ADAMW, lr=lr),
        )
        run._resume, run._load_from = source is not None, source
        return warnings_of(run)

    iterations(4, 0.01)
    lines = iterations(8, 0.02, str(tmp_path / 'epoch_1.pth'))
    assert any('lr 0.01 (config: 0.02)' in line for line in lines)
    lines = iterations(4, 0.01, str(tmp_path / 'epoch_1.pth'))
    assert any('of iter 4, and train_cfg.max_iters is 4' in line for line in lines)


def test_another_kind_of_schedule_is_refused(with_cosine, trained, tmp_path):
    expected = r'param_scheduler CosineAnnealingLR \(config: RFDETRLR\).*=config'
    with pytest.raises(ResumeError, match=f'{expected}.*load_from='):
        build(tmp_path, with_cosine).train()
    with pytest.raises(ResumeError, match=r'RFDETRLR \(config: ConstantLR'):
        build(tmp_path, trained, scheduler=dict(type='ConstantLR')).train()


def test_a_schedule_of_another_length_is_logged(with_cosine, tmp_path):
    (line,) = warnings_of(build(tmp_path, with_cosine, scheduler=COSINE))
    assert 'param_scheduler.T_max 20 (config: 40)' in line


def test_a_finished_run_says_how_to_train_longer(trained, tmp_path):
    (line,) = warnings_of(build(tmp_path, trained, epochs=2))
    assert (
        'finished: the checkpoint is of epoch 2, and train_cfg.max_epochs is 2' in line
    )
    assert 'train_cfg.max_epochs=4, ' in line
    run = build(tmp_path, trained, epochs=4)
    assert warnings_of(run) == []
    assert run.epoch == 4


def test_a_run_that_stopped_early_says_so(tmp_path):
    hooks = [dict(type='RFDETREMAHook'), dict(STOPPING, strict=True)]
    first = build(tmp_path, epochs=4, hooks=hooks)
    first.train()
    assert first.epoch == 3
    for stopping, epoch in ((True, 3), (False, 4)):
        run = build(tmp_path, tmp_path, hooks=hooks[: 1 + stopping])
        run._load_from = str(tmp_path / 'epoch_3.pth')
        lines = warnings_of(run)
        assert [line for line in lines if 'EarlyStoppingHook' in line] == lines
        assert len(lines) == stopping
        assert run.epoch == epoch


def test_without_its_average_a_run_goes_on_from_what_was_trained(trained, tmp_path):
    run = build(tmp_path, trained, epochs=2, hooks=[dict(type='IterTimerHook')])
    line, *_ = warnings_of(run)
    assert 'without the average' in line
    checkpoint = torch.load(trained / 'epoch_2.pth')
    trained_weight = checkpoint['ema_state_dict']['module.weight']
    assert run.model.weight == trained_weight != checkpoint['state_dict']['weight']


def test_an_unknown_choice_is_refused(tmp_path):
    with pytest.raises(
        SettingError, match="resume_settings='new' must be 'checkpoint'"
    ):
        build(tmp_path, resume_settings='new')


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


@pytest.mark.parametrize('transport', [shutil.move, shutil.copytree])
@pytest.mark.parametrize('out_dir', [None, 'elsewhere'])
def test_a_work_folder_that_was_moved_is_resumed(transport, out_dir, tmp_path):
    """With its own files, also where those of the old place are still there."""
    old, new = tmp_path / 'old', tmp_path / 'new'
    for folder in (old, new):
        work_dir = folder / 'mine'
        run = build(
            work_dir,
            epochs=2 if folder is old else 4,
            scores=(0.1, 0.3) if folder is old else (0.2, 0.4),
            out_dir=out_dir and str(folder / out_dir),
        )
        run._resume = True
        assert warnings_of(run) == []
        if folder is old:
            before = contents(old)
            transport(old, new)
    assert run.epoch == 4
    saved = new / (out_dir or '') / 'mine'
    assert names(saved) == [
        'best_coco_bbox_mAP_epoch_4.pth',
        'epoch_3.pth',
        'epoch_4.pth',
    ]
    assert (new / 'mine' / 'last_checkpoint').read_text() == str(saved / 'epoch_4.pth')
    if transport is shutil.move:
        assert not old.exists()
    else:
        assert contents(old) == before


def point(folder, text):
    folder.mkdir()
    (folder / 'epoch_1.pth').touch()
    (folder / 'last_checkpoint').write_text(text)
    run = build(folder)
    run._resume = True
    run.call_hook('before_run')
    return run._load_from


@pytest.mark.parametrize(
    'text', ['epoch_1.pth\n', '/old/epoch_1.pth', 'C:\\old\\epoch_1.pth']
)
def test_a_pointer_of_any_system_is_followed(tmp_path, text):
    assert point(tmp_path / 'new', text) == str(tmp_path / 'new' / 'epoch_1.pth')


@pytest.mark.parametrize('text', ['', '/old/epoch_2.pth'])
def test_a_pointer_to_nothing_is_an_error(tmp_path, text):
    with pytest.raises(CheckpointError, match='last_checkpoint names .* load_from'):
        point(tmp_path / 'new', text)


def test_checkpoints_without_a_pointer_are_not_overwritten_in_silence(
    trained, tmp_path
):
    shutil.copy(trained / 'epoch_2.pth', tmp_path)
    run = build(tmp_path, epochs=2)
    run._resume = True
    (warning,) = warnings_of(run)
    assert 'has no file last_checkpoint: the run begins anew' in warning
    assert (
        'overwrites epoch_2.pth in' in warning
        and 'load_from=FILE to --resume' in warning
    )
    run = build(tmp_path, epochs=4)  # as advised
    run._resume, run._load_from = True, str(trained / 'epoch_2.pth')
    assert warnings_of(run) == [] and run.epoch == 4


def test_mmengines_flexible_runner_looks_as_well(tmp_path):
    def flexible(epochs, model, **settings):
        return FlexibleRunner(
            model=model,
            work_dir=str(tmp_path),
            train_dataloader=loader(),
            train_cfg=dict(type='RFDETRTrainLoop', max_epochs=epochs),
            optim_wrapper=dict(optimizer=ADAMW),
            param_scheduler=dict(type='RFDETRLR', convert_to_iter_based=True),
            default_hooks=dict(checkpoint=dict(type='RFDETRCheckpointHook')),
            default_scope='mmdet',
            **settings,
        )

    flexible(1, Sized(weight=1, more=2)).train()
    run = flexible(2, Sized(weight=1, more=2), resume=True)
    run.train()
    assert run.epoch == 2
    with pytest.raises(ResumeError, match=r'more is \(2,\) in the checkpoint'):
        flexible(3, Sized(weight=1, more=3), resume=True).train()
