"""A file is what it was or complete, whatever happens while it is written."""

import multiprocessing
import os
import resource
import signal

import pytest
import torch

from mmdet_rfdetr.checkpoints import load_checkpoint_file, save_checkpoint_file
from mmdet_rfdetr.checkpoints.writing import replacing
from mmdet_rfdetr.errors import CheckpointError
from tests.interpreter import fork_together

CHECKPOINT = {'state_dict': {'layer.weight': torch.arange(6.0)}, 'meta': {'epoch': 3}}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / 'model.pth'
    save_checkpoint_file(CHECKPOINT, path)
    loaded = load_checkpoint_file(path)
    assert loaded['meta'] == CHECKPOINT['meta']
    assert torch.equal(loaded['state_dict']['layer.weight'], torch.arange(6.0))
    usual = tmp_path / 'usual'
    usual.touch()
    assert path.stat().st_mode == usual.stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ['model.pth', 'usual']


def directly(path):
    """What writing without a second file would be."""
    return open(path, 'wb')


def die_in_the_midst(write, path):
    with write(path) as file:
        file.write(b'new ' * 1000)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize('write', [replacing, directly])
def test_killed_while_writing(write, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')
    child = multiprocessing.get_context('fork').Process(
        target=die_in_the_midst, args=(write, path)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    # The second case shows that the first would notice.
    assert (path.read_bytes() == b'old') == (write is replacing)


@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='names by number')
def test_everything_is_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    events = []

    def fsync(descriptor):
        name = os.readlink(f'/proc/self/fd/{descriptor}')
        events.append(('flush', os.path.basename(name)))

    replace = os.replace
    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(
        os, 'replace', lambda *names: [events.append(('rename', '')), replace(*names)]
    )
    with replacing(path) as file:
        file.write(b'new')
    assert path.read_bytes() == b'new'
    temporary = f'.epoch_1.pth.{os.getpid()}.tmp'
    assert events == [('flush', temporary), ('rename', ''), ('flush', tmp_path.name)]


@pytest.mark.parametrize('error', [KeyError, OSError(28, 'No space left on device')])
def test_an_error_while_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')
    with pytest.raises((KeyError, CheckpointError)), replacing(path) as file:
        file.write(b'new')
        raise error
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    path = tmp_path / 'nowhere' / 'epoch_1.pth'
    with pytest.raises(CheckpointError, match=str(path)):
        save_checkpoint_file(CHECKPOINT, path)


def fill_a_disk(folder):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with pytest.raises(CheckpointError, match='cannot be written'):
        save_checkpoint_file({'a': torch.ones(10**6)}, folder / 'weights.pth')


def test_a_disk_that_fills_up_ends_in_one_sentence(tmp_path):
    """A limit on the size of files stands in for the disk, in another process."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    ended = fork_together(fill_a_disk, disk, folder=tmp_path, processes=1)
    assert ended == ([0], [''])
    assert not list(disk.iterdir())


class Broken:
    """What cannot be copied from its device."""

    def __reduce__(self):
        raise RuntimeError('device-side assert')


def test_an_error_of_torch_stays_itself_where_another_is_handled(tmp_path):
    with pytest.raises(RuntimeError, match='device-side assert'):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            save_checkpoint_file({'a': Broken()}, tmp_path / 'weights.pth')
    assert not os.listdir(tmp_path)
