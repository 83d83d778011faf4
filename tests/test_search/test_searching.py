"""A whole search: its files, how it goes on, and what it warns of."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_rfdetr.errors import BadDataError, ResumeError, SettingError
from mmdet_rfdetr.runtime.measuring import Measurement
from mmdet_rfdetr.search import Subnet
from mmdet_rfdetr.search.finishing import finish
from mmdet_rfdetr.search.planning import plan
from mmdet_rfdetr.search.running import Search
from tests import factory
from tests.fixtures import REPOSITORY
from tests.test_search import case

SMALL = {
    **case.SPACE,
    'image_sizes': [32],
    'num_windows': [1],
    'num_layers': [0, 2],
    'num_queries': [3, 6],
}
COUNT = 8


class Noting(Measurement):
    """Notes which data are measured, and for how many models."""

    noted = []

    def run(self, keys, *args):
        found = super().run(keys, *args)
        self.noted.append((self.images, len(found)))
        return found


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A config of a small space, and its checkpoints."""
    folder = tmp_path_factory.mktemp('case')
    config, checkpoint = case.write_case(folder)
    cfg = Config.fromfile(config)
    cfg.model.search_space = SMALL
    model = factory.build_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'epoch_1.pth')
    cfg.dump(folder / 'small.py')
    return cfg, checkpoint


def searching(made, folder, measurement=Measurement, **changes):
    cfg, checkpoint = made
    return Search(cfg, case.options(folder, checkpoint, **changes), measurement)


def lines_of(folder):
    return [json.loads(x) for x in (folder / 'subnets.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def finished(made, tmp_path_factory):
    """A search with everything that can be asked for."""
    folder = tmp_path_factory.mktemp('found')
    other = folder / 'other'
    case.write_pictures(other, 12, seed=5, size=(44, 48))
    search = searching(
        made,
        folder,
        holdout=str(other / 'annotations.json'),
        holdout_images=str(other),
        baseline=made[1],
        budget_ms=1e-3,
    )
    finish(search, *search.run())
    return folder


def test_each_sub_net_has_a_line(finished):
    lines = lines_of(finished)
    assert len(lines) == COUNT
    for line in lines:
        subnet = Subnet.parse(line['name'])
        assert {**subnet._asdict()}.items() <= line.items()
        assert line['images'] == 10 and len(line['replicates']) == 10
        assert line['gflops'] > 0 and line['params'] > 0
        assert line['latency_ms']['median'] > 0 and 'spread' in line['latency_ms']
    assert any(0 < line['bbox_mAP'] != round(line['bbox_mAP'], 3) for line in lines)


def test_the_front_is_measured_from_what_was_exported(finished):
    front = json.loads((finished / 'pareto.json').read_text())
    lines = {line['name']: line for line in lines_of(finished)}
    assert front
    best = max(line['bbox_mAP'] for line in lines.values())
    assert front[-1]['bbox_mAP'] == best
    for entry in front:
        assert entry['latency_ms']['measured']
        assert {*entry['neighbours']} <= {*lines} - {entry['name']}
        assert 'holdout_mAP' in entry and 'predicted_ms' in entry
        exported = finished / 'front' / entry['name']
        assert {file.suffix for file in exported.iterdir()} == {'.py', '.pth'}
    measured = {n for n, line in lines.items() if line['latency_ms']['measured']}
    assert measured == {entry['name'] for entry in front}


def test_the_report_says_what_must_not_be_overlooked(finished):
    report = (finished / 'report.md').read_text()
    assert "Kendall's tau of epoch_1.pth and epoch_2.pth is" in report
    assert 'Nothing of the front takes at most 0.001 ms' in report
    assert '10 validation images are fewer than 100' in report
    assert '12 images of' in report and '| baseline |' in report
    assert 'cpu clock' in report and 'cores' in report
    picture = (finished / 'pareto.png').read_bytes()
    assert picture.startswith(b'\x89PNG') and len(picture) > 5000


def test_images_of_the_search_are_no_hold_out(made, finished):
    pictures = made[0].val_dataloader.dataset.data_root
    search = searching(made, finished, holdout=f'{pictures}/annotations.json')
    with pytest.raises(BadDataError, match='10 of 10 images of --holdout'):
        finish(search, *search.run())


def test_a_folder_of_another_search_is_refused(made, finished):
    other = str(Path(made[1]).with_name('epoch_1.pth'))
    with pytest.raises(ResumeError, match='another checkpoint'):
        searching((made[0], other), finished).run()


def test_a_search_goes_on_behind_what_is_written(made, finished, tmp_path):
    lines = lines_of(finished)
    first = [line for line in lines if line['patch_size'] == 4]
    for name in ('search.json', 'latency.json'):
        (tmp_path / name).write_text((finished / name).read_text())
    text = ''.join(json.dumps(line) + '\n' for line in first)
    # The last line was cut off when the process was killed.
    (tmp_path / 'subnets.jsonl').write_text(text + json.dumps(lines[-1])[:40])
    Noting.noted.clear()
    search = searching(made, tmp_path, Noting)
    subnets, _ = search.run()
    assert Noting.noted == [(10, COUNT - len(first))]
    found = search.results.read()
    assert {found[line['name']]['bbox_mAP'] for line in lines} == {
        line['bbox_mAP'] for line in lines
    }
    Noting.noted.clear()
    assert search.run()[0] == subnets and not Noting.noted


@pytest.mark.long
def test_some_images_tell_what_is_looked_at_on_all(made, finished, tmp_path):
    for name in ('search.json', 'latency.json'):
        (tmp_path / name).write_text((finished / name).read_text())
    Noting.noted.clear()
    search = searching(made, tmp_path, Noting, images=6)
    subnets, latencies = search.run()
    assert Noting.noted[:2] == [(6, 4), (6, 4)]
    on_all = sum(count for images, count in Noting.noted if images == 10)
    assert on_all == len(subnets) < len(latencies) == COUNT
    finish(search, subnets, latencies)
    assert sorted({line['images'] for line in lines_of(tmp_path)}) == [6, 10]
    assert len(lines_of(tmp_path)) == COUNT
    best = max(lines_of(finished), key=lambda line: line['bbox_mAP'])
    front = json.loads((tmp_path / 'pareto.json').read_text())
    assert front[-1]['bbox_mAP'] == best['bbox_mAP']


def test_a_plan_says_tokens_memory_and_the_saving(made, tmp_path):
    text = plan(searching(made, tmp_path / 'none', images=6)).describe()
    assert '8 sub-nets of 2 sizes' in text and 'tokens: 64 to 121' in text
    assert 'times as many' in text and 'MB on the device' in text
    assert '6 images' in text and 'all 10 images' in text
    assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize('change', [dict(threads=2), dict(device='cuda')])
def test_a_clock_that_tells_another_time_is_refused(made, tmp_path, change):
    with pytest.raises(SettingError, match='--clock cpu adds up'):
        searching(made, tmp_path, **change)


def command(config, checkpoint, folder, *options):
    tool = REPOSITORY / 'tools' / 'search.py'
    line = [sys.executable, tool, config, checkpoint, '--work-dir', folder, *options]
    usual = ['--pause', '0', '--rounds', '1', '--clock', 'cpu']
    env = dict(os.environ, OMP_NUM_THREADS='1')
    return [*map(str, line), *usual], dict(env=env, cwd=folder.parent)


@pytest.mark.long
def test_a_killed_search_is_finished_by_two_processes(made, tmp_path):
    cfg, checkpoint = made
    cfg = Config(cfg.to_dict())
    cfg.model.search_space.num_windows = [1, 2]
    cfg.dump(tmp_path / 'four.py')
    whole = searching((cfg, checkpoint), tmp_path / 'whole')
    whole.run()
    expected = {name: x['bbox_mAP'] for name, x in whole.results.read().items()}
    folder = tmp_path / 'killed'
    line, options = command(tmp_path / 'four.py', checkpoint, folder)
    process = subprocess.Popen(line, **options, stdout=subprocess.DEVNULL)
    file, deadline = folder / 'subnets.jsonl', time.monotonic() + 200
    while not file.exists() or not file.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [json.loads(x)['name'] for x in file.read_text().splitlines()]
    assert 0 < len(before) < len(expected)
    done = subprocess.run(
        [*line, '--processes', '2'],
        **options,
        check=True,
        capture_output=True,
        text=True,
    )
    assert {line['name']: line['bbox_mAP'] for line in lines_of(folder)} == expected
    assert '# The front of a super-net' in done.stdout
    assert 'Evaluating bbox' not in done.stdout + done.stderr
