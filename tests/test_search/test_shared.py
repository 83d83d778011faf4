"""Sub-nets that are evaluated together, beside each of them alone."""

from collections import Counter

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.runtime.measuring import Measurement
from mmdet_rfdetr.search import Subnet
from mmdet_rfdetr.search.export import export_subnet
from mmdet_rfdetr.search.running import Search
from mmdet_rfdetr.search.shared import check_searchable, detect
from mmdet_rfdetr.search.supernet import set_subnet
from tests import factory
from tests.runs import forget_runs, run_name
from tests.test_search import case

FIVE = [
    Subnet(24, 3, 2, 1, 3),
    Subnet(24, 3, 2, 0, 6),
    Subnet(32, 4, 1, 2, 3),
    Subnet(32, 4, 1, 1, 6),
    Subnet(32, 4, 1, 0, 3),
]


@pytest.fixture(scope='module')
def search(tmp_path_factory):
    folder = tmp_path_factory.mktemp('case')
    config, checkpoint = case.write_case(folder)
    options = case.options(folder / 'found', checkpoint)
    return Search(Config.fromfile(config), options, Measurement)


@pytest.fixture(scope='module')
def supernet(search):
    return search.load(search.cfg, search.options.checkpoint)


def by_test_loop(folder, subnet, search):
    """What ``tools/test.py`` does with an exported model."""
    paths = export_subnet(search.cfg, search.options.checkpoint, subnet, folder)
    cfg = Config.fromfile(paths[0])
    cfg.update(work_dir=str(folder), experiment_name=run_name())
    found = Runner.from_cfg(cfg).test()
    forget_runs()
    return found['coco/bbox_mAP']


def compare(subnets, search, supernet, folder):
    groups = {}
    for each in subnets:
        groups.setdefault(each[:3], []).append(each)
    lines = [
        line for group in groups.values() for line in search.evaluate(supernet, group)
    ]
    alone = {each.name: by_test_loop(folder, each, search) for each in subnets}
    assert {line['name']: line['bbox_mAP'] for line in lines} == alone
    assert len({*alone.values()}) > len(alone) // 2
    assert all(0 < line['standard_error'] < 0.2 for line in lines if line['bbox_mAP'])


def test_precisions_are_those_of_the_test_loop_digit_for_digit(
    search, supernet, tmp_path
):
    compare(FIVE, search, supernet, tmp_path)


@pytest.mark.long
def test_precisions_of_a_third_of_the_grid_are_those_of_the_test_loop(
    search, supernet, tmp_path
):
    compare([*search.space.subnets()][::3], search, supernet, tmp_path)


def test_the_first_lines_do_not_depend_on_which_others_are_asked_for(search, supernet):
    one, two = FIVE[2], FIVE[3]
    (alone,) = search.evaluate(supernet, [one])
    assert alone == search.evaluate(supernet, [two, one])[1]


def test_detections_are_equal_to_the_bit(search, supernet):
    batch = next(iter(search.measurement((32, 4, 1)).loader))
    group = [each for each in search.space.subnets() if each[:3] == (32, 4, 1)]
    found = {
        each: [sample.pred_instances for sample in samples]
        for each, samples in detect(supernet, batch, group)
    }
    assert len(found) == 6
    for each, instances in found.items():
        set_subnet(supernet, each)
        with torch.no_grad():
            samples = supernet.test_step(batch)
        for sample, expected in zip(samples, instances, strict=True):
            for key in ('bboxes', 'scores', 'labels'):
                assert torch.equal(sample.pred_instances[key], expected[key]), each


def test_there_is_one_trunk_and_one_decoder_run_for_each_number_of_queries(
    search, supernet
):
    calls = Counter()
    parts = dict(
        backbone=supernet.backbone,
        neck=supernet.neck,
        scores=supernet.query_selection.fc,
        first=supernet.decoder.layers[0],
        second=supernet.decoder.layers[1],
    )
    handles = [
        part.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, part in parts.items()
    ]
    group = [each for each in search.space.subnets() if each[:3] == (24, 3, 2)]
    search.evaluate(supernet, group)
    batches = len(search.measurement((24, 3, 2)).loader)
    assert calls == Counter(
        backbone=batches,
        neck=batches,
        scores=batches,
        first=2 * batches,
        second=2 * batches,
    )
    calls.clear()
    search.evaluate(supernet, [each for each in group if each.num_layers < 2])
    assert calls['first'] == 2 * batches and not calls['second']
    for handle in handles:
        handle.remove()


def test_a_model_with_another_task_or_without_a_space_is_refused():
    with pytest.raises(SettingError, match='no model.search_space'):
        check_searchable(factory.build_model())
    model = factory.build_model(search_space=case.SPACE)
    model.bbox_head.task_heads['mask_head'] = torch.nn.Identity()
    with pytest.raises(SettingError, match='mask_head'):
        check_searchable(model)
