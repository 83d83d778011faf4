import json
import os
import resource
import signal

import pytest
import torch
from mmengine.logging import MMLogger
from safetensors import safe_open

from mmdet_rfdetr.checkpoints import load_checkpoint_file, save_checkpoint_file
from mmdet_rfdetr.errors import CheckpointError
from tests.interpreter import fork_together

from .official import official_state

CHECKPOINT = {
    'state_dict': {'layer.weight': torch.arange(6.0).view(2, 3).T},
    'meta': {},
}


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.safetensors'])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f'model{suffix}'
    save_checkpoint_file({**CHECKPOINT, 'meta': {'epoch': 3}}, path)
    loaded = load_checkpoint_file(path)
    assert loaded['meta'] == {'epoch': 3}
    assert torch.equal(
        loaded['state_dict']['layer.weight'], CHECKPOINT['state_dict']['layer.weight']
    )
    assert os.listdir(tmp_path) == [path.name]


def test_safetensors_leave_out_what_json_cannot_say(tmp_path):
    path = tmp_path / 'model.safetensors'
    meta = {'epoch': 3, 'numbers': torch.zeros(2)}
    save_checkpoint_file({**CHECKPOINT, 'meta': meta}, path)
    with safe_open(path, framework='pt') as file:
        stored = json.loads(file.metadata()['rfdetr'])
    assert stored['meta'] == {'epoch': 3}


def test_what_is_left_out_is_told_at_any_depth(tmp_path, caplog):
    path = tmp_path / 'model.safetensors'
    settings = {'lr': 0.1, 'device': torch.device('cpu'), 'names': {7: 'a'}}
    meta = {'rfdetr': {'args': settings}}
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        save_checkpoint_file({**CHECKPOINT, 'meta': meta, 'optimizer': {}}, path)
        save_checkpoint_file({**CHECKPOINT, 'meta': {'epoch': 3}}, path)
    finally:
        logger.removeHandler(caplog.handler)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == (
        f'{path} lacks meta.rfdetr.args.device, meta.rfdetr.args.names.7, optimizer, '
        'which JSON cannot say: write a .pth file to keep all.'
    )


def test_what_can_be_said_is_kept_beside_what_cannot(tmp_path):
    path = tmp_path / 'model.safetensors'
    args = {'num_queries': 5, 'device': torch.device('cpu')}
    save_checkpoint_file({'model': official_state(), 'args': args}, path)
    info = load_checkpoint_file(path)['state_dict']._metadata['']['rfdetr']
    assert info['num_queries'] == 5


def test_entries_that_share_their_memory_are_written(tmp_path):
    path = tmp_path / 'model.safetensors'
    table = torch.arange(4.0)
    save_checkpoint_file({'state_dict': {'a': table, 'b': table[:2]}}, path)
    loaded = load_checkpoint_file(path)['state_dict']
    assert torch.equal(loaded['a'], table)
    assert torch.equal(loaded['b'], table[:2])


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r'ends in \.pth, \.pt, \.safetensors'):
        save_checkpoint_file(CHECKPOINT, tmp_path / 'model.bin')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, suffix
):
    path = tmp_path / f'model{suffix}'
    save_checkpoint_file(CHECKPOINT, path)
    before = path.read_bytes()

    def disk_full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', disk_full)
    with pytest.raises(CheckpointError, match=r'model.* \(No space left on device\)'):
        save_checkpoint_file({**CHECKPOINT, 'meta': {'epoch': 4}}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(
        CheckpointError, match='No such file or directory.*another place'
    ):
        save_checkpoint_file(CHECKPOINT, tmp_path / 'nowhere' / 'model.pth')


def test_the_file_gets_the_usual_permissions(tmp_path):
    path, usual = tmp_path / 'model.pth', tmp_path / 'usual'
    usual.touch()
    save_checkpoint_file(CHECKPOINT, path)
    assert path.stat().st_mode == usual.stat().st_mode


def fill_a_disk(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for name in ('weights.pth', 'weights.safetensors'):
        weights = {'a': torch.ones(10**6)}
        with pytest.raises(CheckpointError, match='cannot be written'):
            save_checkpoint_file({'state_dict': weights}, folder / name)


def test_a_disk_that_fills_up_ends_in_one_sentence(tmp_path):
    """A limit on the size of files stands in for the disk, in another process."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    ended = fork_together(fill_a_disk, disk, folder=tmp_path, processes=1)
    assert ended == ([0], [''])
    assert not list(disk.iterdir())
