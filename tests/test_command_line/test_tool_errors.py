"""What the tools say when something is wrong."""

import pytest
import torch
from mmdet.registry import HOOKS

from mmdet_rfdetr.command_line import running as cli
from mmdet_rfdetr.errors import (
    BadDataError,
    CheckpointError,
    NonFiniteError,
    PrecisionError,
    ResumeError,
)


def test_a_damaged_checkpoint_ends_in_one_sentence(tool, tmp_path):
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes(b'no weights')
    with pytest.raises(SystemExit) as stopped:
        tool('test.py', 'mine.py', damaged, '--work-dir', tmp_path)
    # Python prints a text and exits with 1.
    assert stopped.value.code.startswith(f'error: {damaged} ')


def test_a_fault_of_the_data_ends_in_one_sentence(tool, tmp_path):
    option = 'train_dataloader.dataset.ann_file=nowhere.json'
    dataset = 'train_dataloader.dataset.type=RFDETRCocoDataset'
    arguments = ['mine.py', '--work-dir', tmp_path, '--cfg-options', option, dataset]
    with pytest.raises(SystemExit, match='error: Annotation file .*nowhere.json does'):
        tool('train.py', *arguments)


EXPLAINED = [
    CheckpointError('full'),
    NonFiniteError('full'),
    ResumeError('full'),
    BadDataError('full'),
    PrecisionError('full'),
    FileExistsError('full'),
    BadDataError('Caught BadDataError in a worker\n  File x\nBadDataError: full'),
]


@pytest.mark.parametrize('error', EXPLAINED, ids=repr)
def test_errors_that_explain_themselves_end_without_traceback(error):
    with pytest.raises(SystemExit, match='^error: full$'), cli.explained_errors():
        raise error


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('of torch'),
        ValueError('of torch'),
        FileNotFoundError(2, 'No such file', 'x'),
    ],
)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)) as caught, cli.explained_errors():
        raise error
    assert caught.value is error


def test_the_loss_of_another_process_is_named():
    error = RuntimeError('[gloo/transport/tcp/pair.cc:553] /gloo/ Connection closed')
    with pytest.raises(SystemExit, match='another process'), cli.explained_errors():
        raise error


@pytest.mark.parametrize(
    'hook',
    [
        dict(type='EarlyStoppingHook', monitor='coco/foo'),
        dict(type='CheckpointHook', save_best='coco/foo'),
    ],
    ids=lambda hook: hook['type'],
)
def test_a_metric_of_which_nobody_knows_what_is_better_is_named(hook):
    said = "^error: .*'coco/foo'.*set rule='greater'"
    with pytest.raises(SystemExit, match=said), cli.explained_errors():
        HOOKS.build(hook)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['optim_wraper.optimizer.lr=1'], 'did you mean optim_wrapper?'),
        (['max_epoch=3'], "no setting 'max_epoch'"),
        (['data_root=elsewhere'], 'has used this variable already'),
        (['image_size=40'], 'image_size=40 must be a multiple of 32 .* as 32 or 64'),
        (['image_size=large'], 'image_size=large must be a multiple of 32'),
    ],
)
def test_options_that_nothing_reads_are_refused(
    tool, built, toy_project, tmp_path, options, message
):
    path = tmp_path / 'more.py'
    path.write_text(f"_base_ = {str(toy_project / 'mine.py')!r}\ndata_root = 'a'\n")
    with pytest.raises(SystemExit, match='error: .*' + message):
        tool('train.py', path, '--cfg-options', *options)
    assert not built


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.num_querys=7', "keyword argument 'num_querys'.*: correct this key"),
        ('param_scheduler.warmpu=3', "keyword argument 'warmpu': correct this key"),
        ('default_hooks.timer.a=1', "keyword argument 'a': correct this key"),
        ('val_dataloader.dataset.bad_dada=error', "'bad_dada': correct this key"),
        ('default_hooks.checkpont.interval=2', "built from {'interval': 2}, which has"),
        ('model.type=RFDETRR', "no model of type 'RFDETRR': did you mean RFDETR?"),
        ('model.backbone.num_heads=5', 'embed_dims=24 does not divide by num_heads=5'),
        ('train_dataloader.dataset.pipeline.9.type=X', 'fit the config: Index 9'),
        ('model.num_queries.a=1', 'fit the config: num_queries=.*'),
    ],
)
def test_a_mistaken_setting_ends_in_one_sentence(tool, option, message, tmp_path):
    arguments = ['--work-dir', tmp_path, '--cfg-options', option]
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        tool('train.py', 'mine.py', *arguments)


def test_a_folder_that_cannot_be_made_is_named_before_the_run(tool, tmp_path):
    (tmp_path / 'file').touch()
    folder = tmp_path / 'file' / 'below'
    with pytest.raises(SystemExit, match='error: .*below cannot be written'):
        tool('train.py', 'mine.py', '--work-dir', folder)


@pytest.mark.parametrize(
    ('option', 'place'),
    [
        ('--out', 'file/below/x.pkl'),
        ('--out', 'folder.pkl'),
        ('--show-dir', 'file/below'),
    ],
)
def test_places_of_results_are_looked_at_before_the_test(
    tool, built, tmp_path, option, place
):
    (tmp_path / 'file').touch()
    (tmp_path / 'folder.pkl').mkdir()
    with pytest.raises(SystemExit, match='error: .*(below|folder.pkl) cannot be'):
        tool('test.py', 'mine.py', 'mine.py', option, tmp_path / place)
    assert not built


def test_weights_cannot_be_resumed(tool, toy_checkpoint, tmp_path):
    path = tmp_path / 'weights.pth'
    weights = torch.load(toy_checkpoint, weights_only=False)['state_dict']
    torch.save({'state_dict': weights}, path)
    arguments = ['--work-dir', tmp_path, '--resume', path]
    with pytest.raises(SystemExit, match='error: .*weights and no run to resume'):
        tool('train.py', 'mine.py', *arguments)
