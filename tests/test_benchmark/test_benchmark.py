"""The benchmark with a model of toy size: what it measures and what it says."""

import json
import os
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from mmdet_rfdetr.benchmark import plugin, startup
from mmdet_rfdetr.benchmark.clock import Clock
from mmdet_rfdetr.benchmark.flops import count_flops
from mmdet_rfdetr.benchmark.pictures import draw_data_set
from mmdet_rfdetr.benchmark.report import draw, table, write_json
from mmdet_rfdetr.benchmark.sides import (
    BenchmarkError,
    Side,
    measure,
    speedup,
    summarise,
)
from mmdet_rfdetr.errors import SettingError
from tests.factory import write_project
from tests.fixtures import REPOSITORY
from tests.interpreter import run_code

TOOL = REPOSITORY / 'tools' / 'benchmark.py'


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A config of toy size, and pictures."""
    folder = tmp_path_factory.mktemp('benchmark')
    config = write_project(folder)
    draw_data_set(folder / 'drawn', 4, 3, ['square', 'bar'])
    return SimpleNamespace(config=str(config), data=str(folder / 'drawn'))


DEFAULTS = dict(
    checkpoint='',
    cfg_options={},
    device='cpu',
    dtype='config',
    batch_size=1,
    deploy=False,
    cuda_graphs=False,
)


def run_task(project, task, turns=3, **options):
    """Samples of a side, in this process; also its facts."""
    own = dict(target=project.config, task=task, data=project.data)
    args = SimpleNamespace(**{**DEFAULTS, **own, **options})
    clock = Clock('cpu', torch.device('cpu'))
    work, facts = plugin.build(args, clock)
    samples = []
    for _ in range(turns):
        work()
        samples.append(clock.take())
    return samples, facts


def test_latency_is_told_in_three_phases(project):
    samples, facts = run_task(project, 'latency', batch_size=2)
    for phases in samples:
        assert sorted(phases) == ['network', 'post-processing', 'pre-processing']
        assert all(value > 0 for value in phases.values())
    assert facts['images'] == 2
    assert facts['flops'] > 1e6
    assert facts['parameters'] > 1e4


def test_a_deployed_model_is_measured(project):
    samples, facts = run_task(project, 'latency', deploy=True)
    plain, expected = run_task(project, 'latency')
    assert facts['flops'] == expected['flops']
    assert samples[0].keys() == plain[0].keys()


def test_a_training_step_is_told_in_five_phases(project):
    samples, _ = run_task(project, 'training', boxes=4)
    for phases in samples:
        assert set(phases) == {'forward', 'criterion', 'matching', 'backward', 'update'}
        assert all(value > 0 for value in phases.values())


def test_the_loader_goes_through_the_training_pipeline(project):
    samples, facts = run_task(project, 'loader')
    assert [list(phases) for phases in samples] == [['image']] * 3
    assert facts['images'] == 1


def test_the_metric_evaluates_all_images(project):
    samples, facts = run_task(project, 'metric', detections=10)
    assert [list(phases) for phases in samples] == [['evaluation']] * 3
    assert facts == dict(images=4, detections=10)


@pytest.mark.long
@pytest.mark.parametrize('plain', [False, True])
def test_a_checkpoint_is_saved_and_resumed(project, monkeypatch, plain):
    monkeypatch.chdir(Path(project.config).parent)
    samples, facts = run_task(project, 'checkpoint', plain=plain)
    for phases in samples:
        assert list(phases) == ['save', 'resume']
        assert all(value > 0 for value in phases.values())
    assert facts['bytes'] > 1e5


def test_the_metric_takes_data_with_any_category_ids(project):
    own = Path(project.config).with_name('pictures')
    here = SimpleNamespace(config=project.config, data=str(own))
    _, facts = run_task(here, 'metric', detections=10)
    assert facts['images'] == 4
    document = json.loads((own / 'annotations.json').read_text())
    for found in plugin._detections(document, 2):
        assert found['pred_instances']['labels'].tolist() == [0, 1]


class Attention(nn.Module):
    """Attention of 8 heads over 100 tokens of width 64, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 32, bias=False)

    def forward(self, inputs, data_samples, mode):
        heads = inputs.view(1, 100, 8, 8).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads)
        return self.linear(mixed.transpose(1, 2).flatten(2))


def test_attention_is_counted():
    model = Attention()
    counted = count_flops(model, torch.randn(1, 100, 64), [])
    assert counted == 2 * (2 * 100 * 100 * 64) + 2 * 100 * 64 * 32
    assert model.linear.weight.requires_grad


@pytest.mark.long
def test_nano_has_the_published_number_of_operations():
    from mmdet.registry import MODELS
    from mmengine.config import Config

    cfg = Config.fromfile(REPOSITORY / 'configs' / 'rfdetr_nano_coco.py')
    cfg.model.precision = None
    cfg.model.bbox_head.num_classes = 91
    meta = dict(
        img_shape=(384, 384),
        batch_input_shape=(384, 384),
        ori_shape=(384, 384),
        scale_factor=(1, 1),
    )
    counted = count_flops(
        MODELS.build(cfg.model).eval(),
        torch.zeros(1, 3, 384, 384),
        [DetDataSample(metainfo=meta)],
    )
    assert counted / 1e9 == pytest.approx(31.9, rel=0.01)


def test_phases_add_up_and_are_taken_once():
    clock = Clock('wall', torch.device('cpu'))
    for _ in range(2):
        with clock.phase('sleep'):
            time.sleep(0.01)
    assert 20 <= clock.take()['sleep'] < 2000
    assert clock.take() == {}


def test_a_phase_within_itself_counts_once():
    clock = Clock('wall', torch.device('cpu'))
    clock.read = iter([0, 5]).__next__
    with clock.phase('outer'), clock.phase('outer'):
        pass
    assert clock.take() == dict(outer=5)


def test_a_phase_interrupts_the_one_around_it():
    clock = Clock('wall', torch.device('cpu'))
    clock.read = iter([0, 5, 8, 20, 21, 30]).__next__
    with clock.phase('outer'):
        with clock.phase('inner'):
            pass
        with clock.phase('inner'), clock.phase('outer'):
            pass
    assert clock.take() == dict(outer=5 + 12 + 9, inner=3 + 1)


class Event:
    """A stand-in for an event in the queue of a GPU: its time is known later."""

    def __init__(self, time):
        self.time = time

    def elapsed_time(self, end):
        return end.time - self.time


def test_on_a_gpu_borders_are_events_and_recordings_have_none(monkeypatch):
    waited, recording = [], []
    monkeypatch.setattr(torch.cuda, 'synchronize', waited.append)
    monkeypatch.setattr(
        torch.cuda, 'is_current_stream_capturing', lambda: bool(recording)
    )
    clock = Clock('wall', torch.device('cuda'))
    clock.read = map(Event, [0.0, 2.0, 7.0]).__next__
    with clock.phase('forward'):
        pass
    recording.append(True)
    with clock.phase('matching'):
        pass
    assert not waited
    assert clock.take() == dict(forward=2.0)
    assert len(waited) == 1


def test_what_is_told_of_many_samples():
    told = summarise(range(101))
    assert (told['p50'], told['p95'], told['samples']) == (50, 95, 101)


def test_ratios_are_taken_within_a_round():
    # The machine slows down fivefold; the ratio stays.
    base = [[10.0, 10, 11], [50, 50, 50], [30, 30, 30]]
    other = [[5.0, 5, 4], [25, 25, 25], [10, 10, 10]]
    found = speedup(base, other)
    assert found['median'] == 2
    assert (found['p25'], found['p75'], found['rounds']) == (2, 2.5, 3)


RESULTS = [
    dict(
        name='one',
        facts=dict(images=2),
        memory=3_000_000_000,
        phases=dict(a=dict(p50=1.0, p95=2.0), total=dict(p50=4.0, p95=5.0)),
    ),
    dict(
        name='two',
        facts=dict(images=2, flops=31_900_000_000),
        memory=5_000_000,
        phases=dict(b=dict(p50=1.5, p95=2.0), total=dict(p50=2.0, p95=3.0)),
        speedup=dict(median=2.0, p25=1.9, p75=2.1),
    ),
]


def test_the_table_has_all_sides_and_phases():
    head, _, one, two, _, legend = table(RESULTS).splitlines()
    assert legend == (
        'Times: median / 95 % quantile. Speed: median of the rounds (25 to 75 %).'
    )
    assert 'a, ms | total, ms | b, ms' in head
    assert 'speed against one' in head
    assert one == '| one | 1 / 2 | 4 / 5 |  | 500 | 3000 MB |  | 1 |'
    assert two == '| two |  | 2 / 3 | 1.5 / 2 | 1000 | 5 MB | 31.9 | 2.00 (1.90-2.10) |'


def test_the_picture_has_a_bar_for_each_side_and_phase():
    axes = draw(RESULTS, 'latency').axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['one', 'two']
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.0, 0.0, 1.5]
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 1, 0]


def test_the_file_says_how_it_was_measured(tmp_path):
    write_json(RESULTS, dict(command='python tools/benchmark.py'), tmp_path / 'r.json')
    content = json.loads((tmp_path / 'r.json').read_text())
    assert content['protocol']['command'] == 'python tools/benchmark.py'
    assert content['results'][1]['speedup']['median'] == 2


def test_drawn_pictures_are_a_coco_set(tmp_path):
    path = draw_data_set(tmp_path, 4, 5, ['a', 'b'])
    document = json.loads(path.read_text())
    assert len(document['images']) == 4
    assert len(document['annotations']) == 20
    for annotation in document['annotations']:
        image = document['images'][annotation['image_id']]
        x, y, width, height = annotation['bbox']
        assert 0 <= x < x + width <= image['width']
        assert 0 <= y < y + height <= image['height']
    sizes = {(image['height'], image['width']) for image in document['images']}
    assert sizes == {(900, 1200), (1200, 900)}


PEAK = """
from mmdet_rfdetr.benchmark.worker import peak_memory
before = peak_memory()
pages = bytearray(2**28)
print(before, peak_memory() - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
@pytest.mark.long
def test_peak_memory_is_that_of_the_process_alone():
    of_parent = np.ones(2**27)  # 1 GiB, more than imports take
    result = run_code(PEAK)
    assert result.returncode == 0, result.stderr
    before, grown = map(int, result.stdout.split())
    assert before < of_parent.nbytes
    assert 0.9 * 2**28 < grown < 1.1 * 2**28


# A side without torch: speaks what a worker speaks.
FAKE = """
import json, sys
name = json.loads(sys.argv[-1])['target']
if name == 'broken':
    print(json.dumps(dict(error='KeyError: no such model')), flush=True)
    sys.exit(1)
if name == 'dies':
    sys.exit('out of memory')
facts = dict(images=1, device='CPU', threads=1, torch='2')
print(json.dumps(dict(facts=facts)), flush=True)
for line in sys.stdin:
    samples = [dict(work=float(name))] * int(line)
    print(json.dumps(dict(samples=samples)), flush=True)
print(json.dumps(dict(memory=7)), flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    script = tmp_path / 'fake.py'
    script.write_text(FAKE)
    monkeypatch.setattr('mmdet_rfdetr.benchmark.sides._SCRIPT', script)
    return lambda target: Side(target, dict(target=target), sys.executable)


def test_sides_take_turns_and_are_compared(fake):
    said = []
    results = measure([fake('8'), fake('2')], 3, 2, progress=said.append)
    assert results[0]['phases']['work']['samples'] == 6
    assert 'speedup' not in results[0]
    assert results[1]['speedup'] == dict(median=4, p25=4, p75=4, rounds=3)
    assert results[1]['memory'] == 7
    assert said[:2] == ['starting 8', 'starting 2']
    assert said[-1] == 'round 3 of 3'


@pytest.mark.parametrize(
    'name, message',
    [('broken', 'broken: KeyError: no such model'), ('dies', 'dies: out of memory')],
)
def test_a_side_that_fails_is_named(fake, name, message):
    sides = [fake('8'), fake(name)]
    with pytest.raises(BenchmarkError, match=message):
        measure(sides, 3, 2, progress=lambda _: None)
    assert sides[0]._process.poll() is not None


STEPS = """
import subprocess, sys, time
begin = time.process_time()
child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
while time.process_time() < begin + 0.2:
    pass
print('ready')
print('Epoch(train) [1][1/9]')
time.sleep(600)
"""


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='no /proc')
def test_a_command_is_measured_until_it_says_a_word_and_ended_with_its_children(
    monkeypatch,
):
    killed = []
    kill = os.killpg
    monkeypatch.setattr(os, 'killpg', lambda *args: (killed.append(args), kill(*args)))
    args = SimpleNamespace(clock='cpu', threads=1)
    assert 200 <= startup.run(args, '-c', STEPS, until='Epoch(train)') < 60000
    assert len(killed) == 1
    assert startup.run(args, '-c', 'pass') < 60000
    with pytest.raises(SettingError, match='failed.*NameError'):
        startup.run(args, '-c', 'nothing')
    with pytest.raises(SettingError, match='failed'):
        startup.run(args, '-c', 'pass', until='Epoch(train)')


@pytest.mark.slow
@pytest.mark.parametrize('plain', [True, False])
def test_the_start_is_measured(project, monkeypatch, plain):
    monkeypatch.chdir(Path(project.config).parent)
    options = dict(clock='wall', threads=1, plain=plain)
    samples, _ = run_task(project, 'startup', turns=1, **options)
    assert set(samples[0]) == {'help', 'import', 'first step'}


def test_an_interpreter_that_is_none():
    with pytest.raises(BenchmarkError, match='cannot start.*No such file'):
        measure([Side('official', dict(target='RFDETRNano'), '/no/python')], 1, 1)


def run_tool(monkeypatch, *arguments):
    """Run the tool in this process; its sides are processes of their own."""
    monkeypatch.setattr(sys, 'argv', ['tools/benchmark.py', *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


@pytest.mark.long
def test_the_tool_compares_and_reports(project, fake, tmp_path, monkeypatch, capsys):
    run_tool(
        monkeypatch,
        project.config,
        *('--official', '8', '--official-python', sys.executable),
        *('--rounds', 2, '--samples', 1, '--warmup', 1, '--threads', 1),
        *('--data', project.data, '--out-dir', tmp_path / 'out'),
    )
    told = capsys.readouterr()
    rows = [line for line in told.out.splitlines() if line.startswith('|')]
    assert len(rows) == 4
    assert 'network, ms' in rows[0]
    assert 'latency, float32' in told.out
    assert told.err.endswith('round 2 of 2\n')
    content = json.loads((tmp_path / 'out' / 'result.json').read_text())
    assert content['protocol']['threads'] == 1
    ours = content['results'][1]
    assert ours['facts']['threads'] == 1
    assert ours['memory'] > 1e8
    assert ours['speedup']['rounds'] == 2
    assert (tmp_path / 'out' / 'result.png').stat().st_size > 5000


OFFICIAL = ['--official=A', '--official-python=p']
GPU = ['--device=cuda']


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['absent.py'], "config 'absent.py' does not exist"),
        (['--official=A'], '--official needs --official-python'),
        (['--task=metric', *OFFICIAL], 'leave out --official'),
        (['--task=startup', *OFFICIAL], 'compares with MMDetection: leave out'),
        ([*GPU, '--task=startup'], '--task startup is measured on the CPU'),
        (['--rounds', '0'], '--rounds must be 1 or more'),
        ([*GPU, '--clock=cpu'], '--clock cpu does not see a GPU'),
        ([*GPU, '--cuda-graphs'], '--cuda-graphs needs --deploy'),
        ([*GPU, '--official-compile'], '--official-compile needs --official'),
        (
            [*GPU, '--official-compile', *OFFICIAL],
            '--official-compile needs --task training',
        ),
    ],
)
def test_errors_say_what_to_type(arguments, message, project, monkeypatch, capsys):
    monkeypatch.delenv('RFDETR_OFFICIAL_PYTHON', raising=False)
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, project.config, *arguments)
    assert message in capsys.readouterr().err
