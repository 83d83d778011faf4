"""Runs with draws: killed and resumed, in two processes, validated, refused."""

import json
import math
import re

import pytest
import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.errors import NonFiniteError, SettingError
from mmdet_rfdetr.search import SearchSpace, Subnet
from mmdet_rfdetr.search.export import export_subnet
from mmdet_rfdetr.search.supernet import by_operations, set_subnet
from tests import factory
from tests.test_command_line.data_parallel import train as train_together
from tests.test_reliability import project
from tests.test_search.test_supernet import SPACE

KEYS = 'bboxes', 'scores', 'labels'


def config(data, work_dir, **changes):
    """Three epochs of five batches, two of them a step, each step another sub-net."""
    changes = {
        'model.search_space': SPACE,
        'model.data_preprocessor.batch_augments': [dict(type='RFDETRBatchSubnetSize')],
        'default_hooks.subnet': dict(type='RFDETRSubnetHook'),
        'default_hooks.checkpoint.save_best': 'search/bbox_mAP',
        'custom_hooks': [],
        'val_cfg': dict(type='RFDETRSubnetValLoop'),
        **changes,
    }
    cfg = project.config(data, work_dir, **changes)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.val_evaluator = cfg.test_evaluator = [
        cfg.val_evaluator,
        dict(type='SubnetSums'),
    ]
    return cfg


@METRICS.register_module()
class SubnetSums(BaseMetric):
    """Of all that is detected, which differs where mAP is 0."""

    default_prefix = 'sums'

    def process(self, data_batch, data_samples):
        found = [sample['pred_instances'] for sample in data_samples]
        self.results += [float(x[key].sum()) for x in found for key in KEYS]

    def compute_metrics(self, results):
        return dict(all=math.fsum(results))


def short(data, work_dir, **changes):
    """One epoch, without validation."""
    cfg = config(data, work_dir, **changes)
    cfg.train_cfg.max_epochs = 1
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.default_hooks.checkpoint.save_best = None
    return cfg


class Draws(Hook):
    """The sub-net, the size of the batch and the number of each iteration."""

    priority = 'LOW'

    def __init__(self):
        self.seen = []

    def before_train(self, runner):
        backbone = runner.model
        backbone = getattr(backbone, 'module', backbone).backbone
        backbone.register_forward_pre_hook(self.see)
        self.model = runner.model

    def see(self, backbone, inputs):
        if backbone.training:
            model = getattr(self.model, 'module', self.model)
            self.seen.append((model.subnet.name, inputs[0].shape[-1]))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    return factory.write_coco(folder, range(9))


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """The folder of a run that nothing stopped, and its number of events."""
    folder = tmp_path_factory.mktemp('whole')
    assert project.train_in_child(config(data, folder)) == 0
    return folder, json.loads((folder / 'events.json').read_text())['count']


@pytest.mark.long
@pytest.mark.parametrize('share', (0.3, 0.55, 0.8))
def test_killed_and_resumed_it_ends_with_the_same_bits(share, data, whole, tmp_path):
    folder, count = whole
    code = project.train_in_child(config(data, tmp_path), int(share * count))
    assert code < 0
    assert project.train_in_child(config(data, tmp_path, resume=True)) == 0
    expected, found = project.result(folder), project.result(tmp_path)
    for result in (expected, found):
        # A kill between writing and removing leaves one checkpoint more.
        result.pop('files')
    assert project.differences(expected, found) == []


def test_a_checkpoint_is_one_of_the_home_config_and_says_its_space(data, whole):
    path = (whole[0] / 'last_checkpoint').read_text()
    checkpoint = load_checkpoint_file(path)
    space = checkpoint['meta']['rfdetr']['search_space']
    assert space == SearchSpace(**SPACE).as_dict()
    plain = factory.build_model(
        **{'backbone.drop_path_rate': 0.2, 'decoder.dropout': 0.1}
    )
    own = {name: value.shape for name, value in plain.state_dict().items()}
    assert {n: v.shape for n, v in checkpoint['state_dict'].items()} == own


def test_validations_are_tests_of_the_exports(data, whole, tmp_path):
    """Digit for digit, with the averaged weights."""
    folder, _ = whole
    path = (folder / 'last_checkpoint').read_text()
    scalars = load_checkpoint_file(path)['message_hub']['log_scalars']
    cfg = config(data, tmp_path)
    model = factory.build_model(search_space=SPACE)
    ordered = by_operations(model)
    middle = ordered[(len(ordered) - 1) - (len(ordered) - 1) // 2]
    named = dict(largest=ordered[-1], middle=middle, smallest=ordered[0])
    found = {}

    def last(name):
        return float(scalars[f'val/{name}']['values'][-1])

    for name, subnet in named.items():
        exported, weights = export_subnet(cfg, path, subnet, tmp_path)
        own = type(cfg).fromfile(exported)
        own.load_from, own.work_dir = str(weights), str(tmp_path / name)
        metrics = Runner.from_cfg(own).test()
        for key, value in metrics.items():
            assert last(f'{name}/{key}') == value, key
        found[name] = metrics['sums/all']
    mean = sum(found.values()) / 3
    assert last('search/all') == pytest.approx(mean)
    assert len({*found.values()}) > 1


@pytest.mark.parametrize('draw', ['uniform', 'sandwich'])
def test_draws_follow_the_optimizer_step(draw, data, tmp_path):
    counts = dict(uniform=2, sandwich=3)[draw]
    cfg = short(
        data,
        tmp_path,
        **{
            'optim_wrapper.accumulative_counts': counts,
            'default_hooks.subnet.draw': draw,
            'train_cfg.max_epochs': 1,
        },
    )
    runner, draws = Runner.from_cfg(cfg), Draws()
    runner.register_hook(draws)
    runner.train()
    space = runner.model.search_space
    ordered = by_operations(runner.model)
    expected = []
    for iteration in range(5):
        step, number = divmod(iteration, counts)
        subnet = space.draw(0, step)
        if draw == 'sandwich':
            subnet = [ordered[-1], ordered[0], space.draw(0, step, 2)][number]
        expected.append((subnet.name, subnet.image_size))
    assert draws.seen == expected
    assert len({*expected}) > 1
    assert runner.model.subnet is None


class Record(Draws):
    """Writes them, for the process that waits."""

    def after_train(self, runner):
        seen = json.dumps(self.seen)
        with open(f'{runner.work_dir}/draws{runner.rank}.json', 'w') as file:
            file.write(seen)


def test_two_processes_draw_alike_and_equal_one(data, tmp_path):
    changes = {
        'model.backbone.drop_path_rate': 0,
        'model.decoder.dropout': 0,
        'optim_wrapper.accumulative_counts': 1,
        'train_dataloader.drop_last': True,
    }
    plain = [factory.LOAD, factory.ANNOTATIONS, factory.RESIZE, factory.PACK]
    runs = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        cfg = short(data, folder, **changes)
        cfg.train_dataloader.batch_size = 4 // processes
        cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=False)
        cfg.train_dataloader.dataset.pipeline = plain
        runs[processes] = folder
        if processes == 1:
            runner = Runner.from_cfg(cfg)
            runner.register_hook(Record())
            runner.train()
            continue
        codes, said, _ = train_together(cfg, Record())
        assert codes == [0, 0], said
    one = json.loads((runs[1] / 'draws0.json').read_text())
    for rank in (0, 1):
        assert json.loads((runs[2] / f'draws{rank}.json').read_text()) == one
    assert len({name for name, _ in one}) > 1
    weights = [
        load_checkpoint_file((runs[n] / 'last_checkpoint').read_text())['state_dict']
        for n in (1, 2)
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(
            weights[1][name], value, rtol=1e-4, atol=2e-5, msg=name
        )


# Refused


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'default_hooks.subnet.draw': 'sandwich'}, 'accumulative_counts=2'),
        ({'model.search_space': None}, 'model.search_space'),
        (
            {'model.data_preprocessor.batch_augments': None},
            'RFDETRBatchSubnetSize',
        ),
        ({'model.compile': dict(parts=['backbone'])}, 'model.compile'),
    ],
)
def test_what_does_not_go_with_draws_is_refused(changes, says, data, tmp_path):
    with pytest.raises(SettingError, match=says):
        Runner.from_cfg(short(data, tmp_path, **changes)).train()


def test_cuda_graphs_are_refused(data, tmp_path):
    cfg = short(
        data,
        tmp_path,
        **{
            'model.cuda_graphs': True,
            'model.backbone.drop_path_rate': 0,
            'model.train_cfg.assigner.solver': 'device',
        },
    )
    with pytest.raises(SettingError, match='model.cuda_graphs=True'):
        Runner.from_cfg(cfg).train()


def test_an_unknown_draw_and_unknown_names_are_refused(data, tmp_path):
    unknown = {'default_hooks.subnet.draw': 'evenly'}
    with pytest.raises(SettingError, match="draw='evenly'"):
        Runner.from_cfg(short(data, tmp_path, **unknown))
    cfg = config(data, tmp_path, **{'val_cfg.val_subnets': ['large']})
    with pytest.raises(SettingError, match="'large' names no sub-net"):
        Runner.from_cfg(cfg).val_loop  # noqa: B018


# Numbers that are not finite


class Ruin(Hook):
    """Makes a loss of the fourth iteration infinite."""

    priority = 'LOW'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3:
            with torch.no_grad():
                runner.model.bbox_head.fc_cls.bias.fill_(float('nan'))


def test_a_run_that_breaks_names_its_sub_net_and_is_computed_again(data, tmp_path):
    from mmdet_rfdetr.analysis.dump import replay

    cfg = short(data, tmp_path, **{'default_hooks.non_finite': {}})
    cfg.default_hooks.non_finite = dict(type='RFDETRNonFiniteHook')
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Ruin())
    subnet = runner.model.search_space.draw(0, 1)
    with pytest.raises(NonFiniteError, match=f'sub-net {subnet.name}: a loss') as error:
        runner.train()
    (path,) = re.findall(r'(\S+\.pth)', str(error.value))[:1]
    sizes = []
    build = factory.MODELS.build

    def see(backbone, inputs):
        size = inputs[0].shape[-1], backbone.patch_size, backbone.num_windows
        sizes.append(size)

    def watched(model_cfg):
        model = build(model_cfg)
        if hasattr(model, 'backbone'):
            model.backbone.register_forward_pre_hook(see)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory.MODELS, 'build', watched)
        _, *batches = replay(cfg, path)
    assert [iteration for iteration, _ in batches] == [2, 3]
    assert {*sizes} == {subnet[:3]}
    assert not batches[-1][1].is_finite


def test_the_log_names_sub_nets(data, tmp_path, capfd):
    cfg = short(data, tmp_path, log_level='INFO')
    cfg.default_hooks.subnet.interval = 2
    runner = Runner.from_cfg(cfg)
    runner.train()
    said = ''.join(capfd.readouterr())
    for iteration in (2, 4):
        subnet = runner.model.search_space.draw(0, (iteration - 1) // 2)
        assert f'Iteration {iteration}, sub-net {subnet.name}' in said
    assert MessageHub.get_current_instance().get_info('step').startswith(', sub-net')


def test_a_batch_is_resized_with_its_boxes():
    model = factory.build_model(
        search_space=SPACE,
        **{
            'data_preprocessor.pad_size_divisor': 1,
            'data_preprocessor.batch_augments': [dict(type='RFDETRBatchSubnetSize')],
        },
    )
    set_subnet(model, Subnet(24, 6, 2, 2, 6))
    data = factory.batch((2, 1))
    before = [sample.gt_instances.bboxes.clone() for sample in data['data_samples']]
    made = model.data_preprocessor(data, True)
    assert made['inputs'].shape == (2, 3, 24, 24)
    for sample, boxes in zip(made['data_samples'], before, strict=True):
        assert sample.img_shape == (24, 24)
        torch.testing.assert_close(sample.gt_instances.bboxes, boxes * 24 / 32)
    # A single pixel spreads: shrinking is antialiased.
    image = torch.zeros(3, 48, 48, dtype=torch.uint8)
    image[:, ::4, ::4] = 255
    data = dict(inputs=[image], data_samples=factory.batch((0,))['data_samples'])
    small = model.data_preprocessor(data, True)['inputs']
    assert (
        small.std()
        < 0.3
        * model.data_preprocessor(
            dict(inputs=[image], data_samples=factory.batch((0,))['data_samples']),
            False,
        )['inputs'].std()
    )
