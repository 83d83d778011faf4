"""The model as a graph: equal to the model for every batch, at every size."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_rfdetr import config as shipped
from mmdet_rfdetr.deploy.network import DeployedNetwork
from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.models.query_selection import unpadded_proposals
from tests import parity
from tests.interpreter import run_code
from tests.test_deploy import exported

CASES = ('windows', 'levels', 'few_tokens', 'masks')
RUNTIMES = dict(onnxruntime=exported.in_onnxruntime, openvino=exported.in_openvino)
# torch's exporter asks for something that torch deprecates.
pytestmark = pytest.mark.filterwarnings('ignore:.*LeafSpec:FutureWarning')


def all_but(quick, long=CASES):
    """All cases: a quick one, long ones, and the others as slow."""
    mark = {
        case: pytest.mark.long if case in long else pytest.mark.slow for case in CASES
    }
    return [
        case if case == quick else pytest.param(case, marks=mark[case])
        for case in CASES
    ]


@pytest.mark.parametrize('case', CASES)
def test_the_network_is_the_model(case):
    model, size = exported.small_model(case)
    images = exported.clear_images(model, size, 5)
    exported.assert_same(DeployedNetwork(model, size), model, images)


def test_the_model_stays_as_it_is():
    model, size = exported.small_model('levels')
    before = {name: value.clone() for name, value in model.state_dict().items()}
    DeployedNetwork(model.train(), size)
    assert model.training and before.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert value.equal(before[name])


def test_a_part_of_a_project_stays():
    model, size = exported.small_model('windows')

    class Twice(type(model.backbone.blocks[0])):
        def forward(self, x, windows):
            return 2 * super().forward(x, windows)

    model.backbone.blocks[1].__class__ = Twice
    images = exported.clear_images(model, size, 2)
    exported.assert_same(DeployedNetwork(model, size), model, images, (2,))


@pytest.mark.parametrize('use_dora', (False, True))
def test_adapters_are_merged(use_dora):
    pytest.importorskip('peft')
    from mmdet_rfdetr.formats.lora import add_adapters

    model, size = exported.small_model('windows')
    add_adapters(model.backbone, dict(r=4, use_dora=use_dora))
    torch.manual_seed(0)
    for name, weight in model.backbone.named_parameters():
        if 'lora_' in name:
            nn.init.normal_(weight, mean=float('magnitude' in name), std=0.2)
    images = exported.clear_images(model, size, 2)
    network = DeployedNetwork(model, size)
    assert not [name for name, _ in network.named_parameters() if 'lora_' in name]
    exported.assert_same(network, model, images, (2,))


@pytest.mark.parametrize('case', all_but('masks'))
def test_exported_programs_take_any_batch(case):
    model, size = exported.small_model(case)
    images = exported.clear_images(model, size, 5)
    network = DeployedNetwork(model, size)
    unpadded_proposals.cache_clear()
    program = torch.export.export(
        network, (images[:2],), dynamic_shapes=(exported.BATCH,)
    )
    # The model that is compared runs after the export, which left nothing behind.
    exported.assert_same(program.module(), model, images)


@pytest.mark.long
@pytest.mark.parametrize('case', CASES)
def test_the_model_itself_is_exported(case):
    model, size = exported.small_model(case)
    images = exported.clear_images(model, size, 5)
    program = torch.export.export(
        exported.Plain(model),
        (images[:2],),
        dynamic_shapes=(exported.BATCH,),
    )
    exported.assert_same(program.module(), model, images)


def test_an_export_that_fails_leaves_the_model_whole():
    model, size = exported.small_model('windows')
    images = exported.clear_images(model, size, 2)
    wanted = exported.outputs_of(model, images)
    unpadded_proposals.cache_clear()

    class Asks(exported.Plain):
        def forward(self, images):
            found = super().forward(images)
            return found if found[0].sum() > 0 else None

    with pytest.raises(Exception, match='data-dependent'):
        torch.export.export(Asks(model), (images,))
    for name, value in exported.outputs_of(model, images).items():
        assert value.equal(wanted[name])


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', ('network', 'model'))
def test_torchscript_is_right_or_refused(kind, tmp_path):
    model, size = exported.small_model('levels')
    images = exported.clear_images(model, size, 5)
    whole = exported.Plain(model).eval()
    network = DeployedNetwork(model, size) if kind == 'network' else whole
    traced = torch.jit.trace(network, images[:2], check_trace=False)
    exported.assert_same(traced, model, images)
    with pytest.raises(SettingError, match='dynamo=True'):
        exported.to_onnx(network, images[:2], tmp_path, dynamo=False, dynamic=False)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module', params=all_but(None, ['masks']))
def small_file(request, tmp_path_factory):
    """Model, images and the ONNX file of a case."""
    model, size = exported.small_model(request.param)
    images = exported.clear_images(model, size, 5)
    folder = tmp_path_factory.mktemp('file')
    network = DeployedNetwork(model, size)
    return model, images, exported.to_onnx(network, images[:2], folder)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_files_say_what_the_model_says(small_file, runtime):
    model, images, path = small_file
    exported.assert_same(RUNTIMES[runtime](path), model, images)


def test_files_hold_what_tensorrt_reads(small_file):
    onnx = pytest.importorskip('onnx')
    operators = pytest.importorskip('tests.test_deploy.operators')
    *_, path = small_file
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert [entry.version for entry in graph.opset_import if not entry.domain] == [20]
    assert not list(operators.refused(graph.graph))
    assert not {'ScatterND', 'Erf', 'NonZero', 'Loop', 'If'} & kinds(graph)


def kinds(graph):
    """Operators of an ONNX model."""
    return {node.op_type for node in graph.graph.node}


def test_a_graph_that_tensorrt_does_not_read(small_file):
    onnx = pytest.importorskip('onnx')
    operators = pytest.importorskip('tests.test_deploy.operators')
    graph = onnx.load(small_file[-1]).graph
    nodes = {node.op_type: node for node in graph.node}
    antialias = onnx.helper.make_attribute('antialias', 1)
    nodes['TopK'].input[1] = 'computed'
    graph.node.append(onnx.helper.make_node('Unique', ['x'], ['y'], name='new'))
    graph.node.append(onnx.helper.make_node('Resize', ['x'], ['z'], name='new'))
    graph.node[-1].attribute.append(antialias)
    graph.node.append(onnx.helper.make_node('Squeeze', ['x', 'y'], ['0'], name='new'))
    found = [sentence.split()[0] for sentence in operators.refused(graph)]
    assert sorted(found) == ['Resize', 'Squeeze', 'TopK', 'Unique']


# Runs a tool, and says whom it asked over the network and what it cost.
WATCHED = """
    import runpy, sys, time
    asked = []
    sys.addaudithook(
        lambda event, arguments: event.startswith('socket.') and asked.append(arguments)
    )
    sys.path.insert(0, 'tools')
    runpy.run_path('tools/export.py', run_name='__main__')
    print('asked for', asked)
    print(f'Nano takes {time.process_time():.0f} s of CPU')
"""


@pytest.mark.long
def test_nano_is_a_small_graph(tmp_path):
    """Its last line, with ``-s``, is a figure of docs/deployment.md."""
    onnx = pytest.importorskip('onnx')
    operators = pytest.importorskip('tests.test_deploy.operators')
    init_default_scope('mmdet')
    config = shipped('rfdetr_nano_coco.py')
    model = parity.build_model(Config.fromfile(config).model, exported.weight)
    torch.save(model.state_dict(), tmp_path / 'nano.pth')
    done = run_code(WATCHED, config, tmp_path / 'nano.pth', '--batch', 'dynamic')
    assert done.returncode == 0, done.stderr
    assert not re.search(r'(?i)warn|^W\d{4} ', done.stdout + done.stderr, re.MULTILINE)
    *_, asked, cost = done.stdout.splitlines()
    assert asked == 'asked for []'
    print(f'\n{cost}')
    graph = onnx.load(tmp_path / 'nano.onnx', load_external_data=False)
    assert len(graph.graph.node) <= 850
    assert not list(operators.refused(graph.graph))
    assert not {'ScatterND', 'Erf', 'Resize'} & kinds(graph)


@pytest.mark.parametrize('case', all_but(None, ['masks']))
def test_files_of_the_model_itself(case, tmp_path):
    model, size = exported.small_model(case)
    images = exported.clear_images(model, size, 5)
    path = exported.to_onnx(exported.Plain(model).eval(), images[:2], tmp_path)
    exported.assert_same(exported.in_onnxruntime(path), model, images)
