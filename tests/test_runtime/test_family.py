"""Files, latencies and sentences about a family of models."""

import pytest
from rfdetr_family import front, latency, runs
from rfdetr_family.plan import span
from rfdetr_family.results import Results, other_than


def test_latencies_follow_from_parts():
    def time_of(trunk, tokens, layers, queries):
        layer = 0.01 * queries + 0.001 * tokens
        return trunk + layers * layer + (0.2 if layers else 0) + 0.003 * queries

    parts = dict(
        whole={
            name: dict(
                median=time_of(trunk, tokens, 4, queries),
                spread=0.1,
                num_layers=4,
                num_queries=queries,
            )
            for name, trunk, tokens, queries in (
                ('a', 5.0, 64, 64),
                ('b', 9.0, 400, 300),
            )
        },
        queries={
            str(count): dict(
                layer=[(t, 0.01 * count + 0.001 * t) for t in (64, 225, 400)],
                head=[(64, 0.2), (400, 0.2)],
                results=[(64, 0.003 * count), (400, 0.003 * count)],
            )
            for count in (50, 64, 300)
        },
    )
    for name, trunk, tokens, most in (('a', 5.0, 64, 64), ('b', 9.0, 400, 300)):
        for layers in range(5):
            for queries in (50, 60, most):
                found = latency.predict(parts, name, tokens, layers, queries)
                expected = time_of(trunk, tokens, layers, queries)
                assert found['median'] == pytest.approx(expected)
                assert found['spread'] == 0.1 and not found['measured']


def test_passes_take_turns_and_the_first_do_not_count():
    calls = []
    protocol = latency.Protocol(pause=0, rounds=4, warm_up=2, clock='cpu')
    jobs = {name: lambda name=name: calls.append(name) for name in 'abc'}
    found = protocol.time(jobs, wait=lambda: calls.append('wait'))
    rounds = [calls[start : start + 6 : 2] for start in range(0, 36, 6)]
    assert len(calls) == 36 and all(sorted(each) == [*'abc'] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert {*calls[1::2]} == {'wait'}
    assert {*found} == {*'abc'} and found['a']['measured']


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path):
    results = Results(tmp_path)
    assert results.read() == {}
    results.add([dict(name='a', images=5), dict(name='b', images=5)])
    with results.path.open('a') as file:
        file.write('{"name": "c", "ima')
    results.add([dict(name='a', images=9), dict(name='d', images=5)])
    results.add([dict(name='b', images=3)])
    found = results.read()
    assert {name: entry['images'] for name, entry in found.items()} == dict(
        a=9, b=5, d=5
    )
    results.replace(found.values())
    assert len(results.path.read_text().splitlines()) == 3 and results.read() == found


def test_a_folder_knows_what_it_is_of(tmp_path):
    path = tmp_path / 'about.json'
    assert other_than(path, dict(model=(1, 2), data='x')) is None
    assert other_than(path, dict(model=[1, 2], data='x')) is None
    assert other_than(path, dict(model=[1, 2], data='y')) == 'data'


@pytest.mark.parametrize(
    ('name', 'expected'),
    [('epoch_10.pth', 'epoch_9.pth'), ('best_x_epoch_9.pth', 'epoch_2.pth')]
    + [('iter_5.pth', None), ('epoch_2.pth', None), ('last.pth', None)],
)
def test_the_earlier_checkpoint_is_found_by_its_number(tmp_path, name, expected):
    for each in ('epoch_2.pth', 'epoch_9.pth', 'epoch_10.pth', 'iter_7.pth', 'x.pth'):
        (tmp_path / each).touch()
    found = runs.earlier_checkpoint(str(tmp_path / name))
    assert found == (expected and str(tmp_path / expected))


def entry(name, latency_ms, gain, predicted):
    times = dict(median=latency_ms, spread=0.1, measured=True)
    sizes = dict(gflops=1.0, params=10**6)
    numbers = dict(bbox_mAP=gain, standard_error=0.01, predicted_ms=predicted)
    return dict(name=name, latency_ms=times, **numbers, **sizes)


def test_a_prediction_that_is_off_is_named():
    entries = [entry('near', 10.0, 0.3, 10.9), entry('far', 10.0, 0.4, 8.8)]
    first, *named = front.latency_warnings(entries)
    assert '12.0% (median) and 12.0% (most)' in first
    assert len(named) == 1 and named[0].startswith('far') and '-12.0%' in named[0]


def test_the_best_within_a_budget_is_measured():
    entries = [entry('small', 5.0, 0.3, 4.0), entry('large', 10.0, 0.4, 5.0)]
    assert '**small**' in front.within_budget(entries, 6)
    assert '**large**' in front.within_budget(entries, 10)
    assert 'the fastest is small' in front.within_budget(entries, 4)


def test_an_order_that_changes_is_a_warning():
    names = 'epoch_1.pth', 'epoch_2.pth'
    assert 'WARNING' in front.order_warning(0.5, names)
    assert 'has settled' in front.order_warning(0.9, names)
    assert 'not known' in front.order_warning(None, None)


def test_times_are_told_in_two_units():
    assert [span(5), span(65), span(7500)] == ['5 s', '1 min 5 s', '2 h 5 min']
