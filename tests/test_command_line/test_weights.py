"""The official weights: their table, getting them from a server, finding them."""

import hashlib
import json
import random
import runpy
import shutil
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmdet_rfdetr.command_line import downloading, official_weights
from mmdet_rfdetr.command_line.downloading import DownloadError, fetch
from tests.factory import build_model
from tests.fixtures import REPOSITORY
from tests.interpreter import free_port, run
from tests.live import PYTHON, needs_official
from tests.test_docs import PUBLISHED, WEIGHTS
from tests.test_repository import PACKAGE

CONTENT = random.Random(0).randbytes(700_000)
APACHE, PML = 'Apache-2.0', 'PML-1.0'
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(HTTPServer):
    """Gives one file, and takes note of the ranges that were asked for.

    Attributes:
        cuts: after how many bytes each of the next answers breaks off.
        has_ranges: whether it can begin in the middle.
        status: of all answers, if it is not 200 or 206.
        to: address of a redirection.
    """

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Answer)
        self.content, self.cuts, self.asked = CONTENT, [], []
        self.has_ranges, self.status, self.to = True, None, None
        self.url = f'http://127.0.0.1:{self.server_port}/some.pth'


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        served = self.server
        asked = self.headers['Range']
        served.asked.append(asked)
        first = int(asked[6:-1]) if asked and served.has_ranges else 0
        total = len(served.content)
        if served.status or first >= total:
            self.send_response(served.status or 416)
            if served.to:
                self.send_header('Location', served.to)
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header('Content-Range', f'bytes {first}-{total - 1}/{total}')
        self.send_header('Content-Length', str(total - first))
        self.end_headers()
        cut = served.cuts.pop(0) if served.cuts else total
        self.wfile.write(served.content[first : first + cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '*')
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder for weights of a user who has none yet."""
    monkeypatch.delenv('RFDETR_WEIGHTS', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'mmdet_rfdetr'


@pytest.fixture
def tool(monkeypatch):
    def run_tool(name, *arguments):
        path = REPOSITORY / 'tools' / f'{name}.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name='__main__')

    return run_tool


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# Downloading


def test_a_file_is_downloaded_once_and_whole(server, tmp_path):
    path = tmp_path / 'new' / 'some.pth'
    assert fetch(server.url, path, MD5)
    assert path.read_bytes() == CONTENT
    assert not fetch(server.url, path, MD5)
    assert server.asked == [None]
    assert names_in(path.parent) == ['some.pth']


def test_a_connection_that_breaks_off_is_taken_up_again(server, tmp_path):
    server.cuts = [300_000, 100_000]
    assert fetch(server.url, tmp_path / 'some.pth', MD5)
    assert server.asked == [None, 'bytes=300000-', 'bytes=400000-']
    assert (tmp_path / 'some.pth').read_bytes() == CONTENT


def test_the_next_command_goes_on_where_the_last_one_ended(server, tmp_path):
    server.cuts = [300_000, 0]
    with pytest.raises(DownloadError, match='broke off after 300000 bytes.*again'):
        fetch(server.url, tmp_path / 'some.pth', MD5)
    assert names_in(tmp_path) == ['some.pth.part']
    assert fetch(server.url, tmp_path / 'some.pth', MD5)
    assert server.asked[2:] == ['bytes=300000-']
    assert (tmp_path / 'some.pth').read_bytes() == CONTENT
    assert names_in(tmp_path) == ['some.pth']


def test_a_server_that_cannot_begin_in_the_middle_begins_anew(server, tmp_path):
    (tmp_path / 'some.pth.part').write_bytes(CONTENT[:1000])
    server.has_ranges = False
    assert fetch(server.url, tmp_path / 'some.pth', MD5)
    assert server.asked == ['bytes=1000-']
    assert (tmp_path / 'some.pth').read_bytes() == CONTENT


def test_a_file_that_came_whole_before_it_got_its_name_is_taken(server, tmp_path):
    (tmp_path / 'some.pth.part').write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / 'some.pth', MD5)
    assert names_in(tmp_path) == ['some.pth']


@pytest.mark.parametrize('before', [b'', b'of another file'])
def test_another_content_is_removed_and_told(server, tmp_path, before):
    if before:
        (tmp_path / 'some.pth.part').write_bytes(before)
    else:
        server.content = CONTENT[::-1]
    with pytest.raises(DownloadError, match=f'should be {MD5}: it was removed'):
        fetch(server.url, tmp_path / 'some.pth', MD5)
    assert names_in(tmp_path) == []
    server.content = CONTENT
    assert fetch(server.url, tmp_path / 'some.pth', MD5)


def test_a_file_of_that_name_is_not_touched(server, tmp_path):
    path = tmp_path / 'some.pth'
    path.write_bytes(b'mine')
    with pytest.raises(DownloadError, match=f'{path} is not the published.* move it'):
        fetch(server.url, path, MD5)
    assert path.read_bytes() == b'mine'
    assert server.asked == []


def test_no_server_no_file_and_another_kind_of_address_are_one_sentence(
    server, tmp_path
):
    path = tmp_path / 'some.pth'
    with pytest.raises(DownloadError, match=r'cannot be reached \(.*efused\).*network'):
        fetch(f'http://127.0.0.1:{free_port()}/some.pth', path, MD5)
    server.status = 404
    with pytest.raises(DownloadError, match=r'some.pth answers 404 \(Not Found\)'):
        fetch(server.url, path, MD5)
    server.status, server.to = 302, 'ftp://127.0.0.1/some.pth'
    with pytest.raises(DownloadError, match='leads to ftp://.* not by https'):
        fetch(server.url, path, MD5)
    (tmp_path / 'local').write_bytes(CONTENT)
    with pytest.raises(DownloadError, match='is no address of the web'):
        fetch((tmp_path / 'local').as_uri(), path, MD5)
    assert names_in(tmp_path) == ['local']


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(DownloadError, match=r'cannot be written \(.*--dir'):
        fetch(server.url, tmp_path / 'file' / 'some.pth', MD5)
    assert server.asked == []


def test_a_full_disk_leaves_nothing_under_the_name(server, tmp_path):
    """The shell's limit on files stands in for the end of a disk."""
    tool = [sys.executable, 'tools/weights.py', 'get', 'nano']
    limited = ['bash', '-c', 'ulimit -f 400; exec "$@"', 'bash', *tool]
    asked = run([*limited, '--dir', tmp_path, '--url', server.url])
    assert asked.returncode == 1
    (line,) = asked.stderr.splitlines()
    assert 'rf-detr-nano.pth cannot be written (File too large): make room' in line
    assert names_in(tmp_path) == ['rf-detr-nano.pth.part']
    assert fetch(server.url, tmp_path / 'rf-detr-nano.pth', MD5)
    first = int(server.asked[-1].removeprefix('bytes=').removesuffix('-'))
    assert 0 < first <= 400 * 1024
    assert (tmp_path / 'rf-detr-nano.pth').read_bytes() == CONTENT


def test_how_far_it_has_come_and_how_long_it_takes_is_shown(
    server, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(downloading, '_SECONDS', (0, 0))
    fetch(server.url, tmp_path / 'some.pth', MD5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all('of 0.7 MB' in line and ' left' in line for line in lines)
    assert lines[-1].startswith('0.7 of 0.7 MB') and '0:00 left' in lines[-1]


# The command


@pytest.fixture
def weights(server, cache, tmp_path):
    """Run the tool on a table of one file, which the server publishes, in a copy."""
    part = tmp_path / 'copy' / 'mmdet_rfdetr' / 'command_line'
    part.mkdir(parents=True)
    for path in (PACKAGE / 'command_line').glob('*.py'):
        shutil.copy(path, part)
    (part.parent / '__init__.py').write_text('raise ImportError("PyTorch and all")')
    entry = vars(official_weights.find_entry('nano')) | dict(md5=MD5, url=server.url)
    (part / 'official_weights.json').write_text(json.dumps([entry]))
    shutil.copytree(REPOSITORY / 'tools', tmp_path / 'copy' / 'tools')

    def run_tool(*arguments, **environment):
        tool = tmp_path / 'copy' / 'tools' / 'weights.py'
        found = run(
            [sys.executable, tool, *arguments],
            cwd=tmp_path,
            PYTHONPATH=tmp_path / 'copy',
            **environment,
        )
        assert 'Traceback' not in found.stderr
        return found

    return run_tool


def test_a_file_is_got_by_name_and_is_where_it_is_said_to_be(weights, cache):
    listed = weights().stdout
    assert 'nano  ' in listed
    assert not cache.exists()

    got = weights('get', 'nano').stdout
    place = cache / 'rf-detr-nano.pth'
    assert f"{place} downloaded, its MD5 is right (load_from='rfdetr://nano')" in got
    assert place.read_bytes() == CONTENT
    assert f'{place} is there already' in weights('get', 'rf-detr-nano.pth').stdout
    listed = weights('list').stdout
    assert 'nano*  ' in listed and '1 MB' in listed and f'*: in {cache}' in listed


def test_another_folder_by_argument_or_variable(weights, cache, tmp_path):
    path = tmp_path / 'mine' / 'rf-detr-nano.pth'
    got = weights('get', 'rfdetr_nano_coco.py', '--dir', 'mine').stdout
    assert f'load_from={str(path)!r}' in got
    assert 'nano*' not in weights().stdout
    assert 'nano*' in weights(RFDETR_WEIGHTS=tmp_path / 'mine').stdout
    assert not cache.exists()


def test_what_goes_wrong_is_one_sentence(weights, server):
    server.content = CONTENT[::-1]
    failed = weights('get', 'nano')
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith('error: ') and MD5 in line
    mistaken = weights('get', 'nanno')
    assert mistaken.returncode == 2
    assert mistaken.stderr.endswith("'nanno'; did you mean 'nano'?\n")


# The table


def test_the_table_lists_what_is_known_and_says_what_is_not(tool, capsys):
    tool('weights')
    listed = capsys.readouterr().out
    (row,) = [line for line in listed.splitlines() if line.startswith('base-2 ')]
    assert row.split() == [
        *('base-2', 'none', 'rf-detr-base-2.pth', 'unknown', 'unknown'),
        '462f4d9df407ddc1812f42614040e913',
    ]
    assert 'large-deprecated: The old Large' in listed


def test_the_name_of_the_old_large_leads_to_the_old_large():
    old = official_weights.find_entry('rf-detr-large.pth')
    assert old.configs == ['rfdetr_large-deprecated_coco.py']
    new = official_weights.find_entry('large')
    assert (new.file, new.configs) == (
        'rf-detr-large-2026.pth',
        ['rfdetr_large_coco.py'],
    )


def test_the_table_is_that_of_the_readme():
    shown = {
        file: (configs, link, md5, ap, PML if 'platform-' in link else APACHE)
        for (configs, file, link, md5), ap in zip(WEIGHTS, PUBLISHED, strict=True)
    }
    table = {
        each.file: (
            each.configs,
            each.url,
            each.md5,
            str(each.published['AP']) if each.published else '',
            each.licence,
        )
        for each in official_weights.read_table()
        if each.configs
    }
    assert table == shown


def test_names_files_and_hashes_are_not_mixed_up():
    table = official_weights.read_table()
    for key in ('name', 'file', 'url', 'md5'):
        assert len({getattr(entry, key) for entry in table}) == len(table) == 18
    for entry in table:
        is_mask = entry.name.startswith('seg-')
        assert {name.startswith('rfdetr-seg_') for name in entry.configs} <= {is_mask}
        if entry.published:
            assert entry.published['metric'] == ('segm' if is_mask else 'bbox')
            assert 0 < entry.published['AP'] < entry.published['AP50'] < 100


@pytest.mark.slow
@needs_official
def test_the_table_has_all_files_of_the_official_package():
    lines = [
        'from rfdetr.assets.model_weights import ModelWeights as weights',
        'for entry in weights: print(entry.filename, entry.url, entry.md5_hash)',
    ]
    official = run([PYTHON, '-W', 'ignore', '-c', '\n'.join(lines)]).stdout
    assert {
        f'{each.file} {each.url} {each.md5}'
        for each in official_weights.read_table()
        if each.licence != PML
    } == set(official.splitlines())


# Loading by name


@pytest.fixture
def downloaded(cache):
    """Weights of a small model where those of Nano would lie."""
    cache.mkdir(parents=True)
    weights = build_model().state_dict()
    torch.save(dict(state_dict=weights, meta={}), cache / 'rf-detr-nano.pth')
    return weights


def test_mmengine_finds_what_was_downloaded(downloaded):
    found = CheckpointLoader.load_checkpoint('rfdetr://nano', 'cpu')
    assert found['state_dict'].keys() == downloaded.keys()
    changes = {'init_cfg': dict(type='Pretrained', checkpoint='rfdetr://nano')}
    model = build_model(**changes)
    model.init_weights()
    for name, value in model.state_dict().items():
        assert value.equal(downloaded[name])


def test_nothing_is_downloaded_that_nobody_asked_for(cache, monkeypatch):
    def refuse(*_):
        raise AssertionError('no connection is made')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    command = 'python -m mmdet_rfdetr weights get large$'
    with pytest.raises(FileNotFoundError, match=f'not in {cache} yet.*{command}'):
        CheckpointLoader.load_checkpoint('rfdetr://large')
    with pytest.raises(FileNotFoundError, match="'huge'; there are nano, small"):
        CheckpointLoader.load_checkpoint('rfdetr://huge')


@pytest.mark.parametrize(
    'typed',
    [
        ['test', 'mmdet_rfdetr::rfdetr_nano_coco.py', 'rfdetr://nano'],
        ['train', 'mmdet_rfdetr::rfdetr_nano_coco.py', '--resume', 'rfdetr://nano'],
        ['export', 'mmdet_rfdetr::rfdetr_nano_coco.py', 'rfdetr://nano'],
        ['predict', 'mmdet_rfdetr::rfdetr_nano_coco.py', 'rfdetr://nano', 'a.jpg'],
        ['convert_checkpoint', 'rfdetr://nano', 'nano.safetensors'],
    ],
)
def test_tools_ask_for_it_at_once(typed, cache, tool, capsys):
    with pytest.raises(SystemExit) as stopped:
        tool(*typed)
    assert stopped.value.code == 2
    assert 'mmdet_rfdetr weights get nano\n' in capsys.readouterr().err


def test_tools_take_it_where_it_is(downloaded, tool, tmp_path):
    tool('convert_checkpoint', 'rfdetr://nano', tmp_path / 'nano.safetensors')
    assert (tmp_path / 'nano.safetensors').is_file()
