"""A file is what it was or complete, whenever the process dies."""

import multiprocessing
import os
import signal

import pytest

from mmdet_rfdetr.checkpoints.atomic import replacing
from mmdet_rfdetr.errors import CheckpointError


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


def test_an_error_while_writing_leaves_nothing(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b'new')
        raise KeyError
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    path = tmp_path / 'nowhere' / 'epoch_1.pth'
    with (
        pytest.raises(CheckpointError, match=f'{path} cannot be written .No such file'),
        replacing(path),
    ):
        pass
