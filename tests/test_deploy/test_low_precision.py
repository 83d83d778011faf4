"""Half precision and whole numbers: a trained model through each runtime."""

import copy
import sys

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from rfdetr_runtime import Found, find_objects, open_model, prepare
from rfdetr_runtime.backends import openvino_core

import mmdet_rfdetr
from mmdet_rfdetr.deploy import exporting
from mmdet_rfdetr.deploy.agreement import TOLERANCES, Agreement, table, undecided
from mmdet_rfdetr.deploy.check import compare_means, require_agreement
from mmdet_rfdetr.deploy.low_precision import FLOAT_PARTS, SINGLE_PARTS, nodes_of
from mmdet_rfdetr.deploy.pictures import pictures_of
from mmdet_rfdetr.deploy.settings import Options, Source, build_model
from mmdet_rfdetr.errors import ExplainedError
from mmdet_rfdetr.runtime.exported_file import evaluate
from tests.interpreter import run
from tests.runs import forget_runs
from tests.test_deploy.project import SUFFIXES, graphs_made_once
from tests.test_deploy.stressed import stressed

# The model is trained once, by the one process that has all tests of it.
pytestmark = pytest.mark.xdist_group('low precision')


def trained_demo(folder):
    """Config and weights of the demo after one epoch."""
    cfg = Config.fromfile(mmdet_rfdetr.config('rfdetr_demo.py'))
    changes = {'train_cfg.max_epochs': 1, 'work_dir': str(folder / 'run')}
    for part in ('train', 'val', 'test'):
        changes[f'{part}_dataloader.dataset.data_root'] = str(folder / 'data')
    for part in ('val', 'test'):
        annotations = str(folder / 'data/annotations/val.json')
        changes[f'{part}_evaluator.ann_file'] = annotations
    cfg.merge_from_dict(changes)
    cfg.dump(folder / 'demo.py')
    command = [sys.executable, 'tools/train.py', folder / 'demo.py']
    trained = run(command, timeout=3600)
    assert trained.returncode == 0, trained.stderr
    return cfg, str(folder / 'run' / 'epoch_1.pth')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder, config, weights and figures of the demo, trained once for all rows."""
    folder = tmp_path_factory.mktemp('trained')
    cfg, weights = trained_demo(folder)
    forget_runs()
    figures = evaluate(cfg, weights, folder / 'logs')
    assert figures['coco/bbox_mAP_50'] > 0.2
    return folder, cfg, weights, figures


@pytest.mark.slow
@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'int8'])
@pytest.mark.parametrize('to', ['onnx', 'openvino'])
def test_a_trained_model_detects_as_well(trained, to, precision, monkeypatch):
    """Its lines, with ``-s``, are the table of docs/deployment.md."""
    folder, cfg, weights, model = trained
    monkeypatch.setattr(exporting, 'PICTURES', 40)
    path = folder / precision / f'demo{SUFFIXES[to]}'
    options = Options(to=to, precision=precision, batch=None)
    with graphs_made_once(folder):
        rows = exporting.export(cfg, weights, path, options)
    whole = Agreement()
    for _, one in rows:
        whole = whole.join(one)
    assert whole.wanted >= 60
    forget_runs()
    file = evaluate(cfg, str(path), folder / 'logs')
    compare_means(model, file, precision)
    data = path.with_suffix('.bin')
    size = path.stat().st_size + (data.stat().st_size if data.exists() else 0)
    print(
        f'\n{to} {precision}: {size / 1e6:.1f} MB, kept {whole.kept} of '
        f'{whole.wanted}, score {whole.score:.1e}, mean IoU {np.mean(whole.ious):.4f}, '
        f'mAP {file["coco/bbox_mAP"]:.4f} of {model["coco/bbox_mAP"]:.4f}'
    )


@pytest.mark.slow
def test_a_trained_model_detects_as_well_in_bfloat16(trained):
    """OpenVINO computes in it where it is asked and the processor has it."""
    pytest.importorskip('openvino')
    if 'BF16' not in openvino_core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        pytest.skip('this processor has no bfloat16')
    folder, cfg, weights, model = trained
    path = folder / 'bf16' / 'demo.xml'
    options = Options(to='openvino', batch=None)
    with graphs_made_once(folder):
        exporting.export(cfg, weights, path, options)
    exact, file = open_model(path), open_model(path, precision='bfloat16')
    whole = Agreement()
    for picture in pictures_of(cfg, 40):
        inputs = prepare([picture], exact.metadata)
        found = [
            find_objects(each(inputs), exact.metadata, [picture.shape[:2]])[0]
            for each in (exact, file)
        ]
        whole.add_detections(*found)
    assert whole.wanted >= 60 and whole.score > 0
    asked = copy.deepcopy(cfg)
    asked.model.precision = dict(device_type='cpu', dtype='bfloat16')
    forget_runs()
    figures = evaluate(asked, str(path), folder / 'logs')
    print(
        f'\nopenvino bf16: kept {whole.kept} of {whole.wanted}, score '
        f'{whole.score:.1e}, mean IoU {np.mean(whole.ious):.4f}, '
        f'mAP {figures["coco/bbox_mAP"]:.4f} of {model["coco/bbox_mAP"]:.4f}'
    )
    assert whole.within(TOLERANCES['bf16'])
    compare_means(model, figures, 'bf16')


@pytest.mark.slow
def test_half_precision_takes_a_channel_at_300(trained):
    """What stays in float32 does: with the norms in half the squares overflow."""
    folder, cfg, weights, _ = trained
    model = build_model(cfg, weights)
    source = Source.of(cfg, model)
    options = Options(batch=None, precision='fp16')
    metadata = exporting.describe(model, source, options)
    inputs = prepare(pictures_of(cfg, 8), metadata)
    outliers = folder / 'outliers.pth'
    torch.save(stressed(model, torch.from_numpy(inputs)).state_dict(), outliers)
    path = folder / 'outliers.onnx'
    exporting.export(cfg, str(outliers), path, options)


def products_of(path):
    """Nodes of products with weights that are stored as floats."""
    graph = onnx.load(path).graph
    weights = {entry.name for entry in graph.initializer}
    return {
        node.name.removesuffix('_MatMul')
        for node in graph.node
        if node.op_type in ('MatMul', 'Gemm') and weights & {*node.input}
    }


def test_int8_leaves_the_decoder_in_float(project):
    path, _ = project.exported(batch=None, notes='of mine')
    target = project.folder / 'int8.onnx'
    exporting.quantise_onnx(path, target)
    floats = {*nodes_of(onnx.load(path).graph, FLOAT_PARTS)} & products_of(path)
    assert len(floats) > 10 and len(products_of(path) - floats) > 5
    assert products_of(target) == floats


def test_half_precision_keeps_norms_softmax_sampling_and_scores_in_float32(project):
    path, _ = project.exported(batch=None, notes='of mine')
    target = project.folder / 'half.onnx'
    exporting.to_half(path, target)
    model = onnx.shape_inference.infer_shapes(onnx.load(target))
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (
            *model.graph.value_info,
            *model.graph.input,
            *model.graph.output,
        )
    }
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type in ('LayerNormalization', 'Softmax', 'GridSample', 'Sigmoid'):
            assert types[node.output[0]] == single, node.name
    outside = {node.name for node in model.graph.node} - {
        *nodes_of(model.graph, (*SINGLE_PARTS, 'model.decoder'))
    }
    products = [
        types[node.output[0]]
        for node in model.graph.node
        if node.op_type in ('MatMul', 'Gemm', 'Conv') and node.name in outside
    ]
    assert len(products) > 15 and set(products) == {half}
    assert {types[value.name] for value in model.graph.output} == {single}
    assert {types[value.name] for value in model.graph.input} == {single}


BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [50, 0, 60, 30]], np.float32)
FOUND = Found(BOXES, np.array([0.9, 0.6, 0.4], np.float32), np.array([0, 1, 1]))


def agreement(**changes):
    one = Agreement()
    one.add_detections(FOUND, Found(**{**vars(FOUND), **changes}))
    return one


def test_what_is_found_again():
    same = agreement()
    assert (same.kept, same.wanted, same.misplaced, same.score) == (3, 3, 0, 0)
    assert same.within(TOLERANCES['fp32'])
    other = agreement(labels=np.array([0, 1, 2]))
    assert (other.kept, other.wanted) == (2, 3)
    assert not other.within(TOLERANCES['int8'])
    moved = agreement(boxes=BOXES + np.float32(2))
    assert moved.kept == 0
    swapped = agreement(
        boxes=BOXES[[1, 0, 2]], labels=np.array([1, 0, 1]), scores=FOUND.scores
    )
    assert swapped.misplaced == 2 and swapped.kept == 3
    assert not swapped.within(TOLERANCES['fp32'])
    again = np.concatenate((BOXES, BOXES[:1] + np.float32(0.1)))
    # The very box with a low score is that of another query.
    shifted = Agreement()
    shifted.add_detections(
        FOUND, Found(again, np.float32([0.1, 0.6, 0.4, 0.9]), np.array([0, 1, 1, 0]))
    )
    assert (shifted.kept, shifted.score) == (3, 0)
    broken = Agreement()
    outputs = dict(dets=np.zeros((3, 4)), labels=np.zeros((3, 2)))
    broken.add_raw(outputs, dict(outputs, dets=np.full((3, 4), np.nan)))
    assert broken.boxes == np.inf


def test_ties_of_tokens_excuse_an_order():
    scores = np.array([[5.0, 4.0, 3.0, 2.99999, 0.0], [5.0, 4.0, 3.0, 1.0, 0.99999]])
    assert undecided(scores, 3).tolist() == [True, False]
    assert undecided(scores, 4).tolist() == [True, True]


def test_a_lost_mean_is_an_error():
    model, file = {'coco/bbox_mAP': 0.5}, {'coco/bbox_mAP': 0.493}
    with pytest.raises(ExplainedError, match=r'0\.4930'):
        compare_means(model, file, 'fp16')
    assert '0.4930' in compare_means(model, file, 'int8')
    with pytest.raises(ExplainedError):
        compare_means(model, {}, 'int8')


def test_not_all_pictures_may_be_excused():
    tied, seen = Agreement(images=1, excused=1), agreement()
    require_agreement([('batch 1', tied), ('batch 2', seen)], 'fp32')
    with pytest.raises(ExplainedError, match='all'):
        require_agreement([('batch 1', tied), ('batch 2', tied)], 'fp32')


def test_a_file_that_lost_detections_is_refused_with_what_to_do():
    lost = agreement(labels=np.array([0, 2, 2]))
    with pytest.raises(ExplainedError, match=r'95\.0%.*fp16.*--calibrate\n.*') as error:
        require_agreement([('batch 1', lost)], 'int8')
    assert '1 of 3' in str(error.value)


def test_the_table_has_no_number_of_what_was_not_compared():
    rows = dict(
        raw=Agreement(by_index=1, images=1),
        masks=Agreement(by_index=1, images=1, masks=1e-5),
        found=Agreement(images=1),
    )
    cells = [line.split() for line in table(list(rows.items())).splitlines()[1:]]
    zero = '0.0e+00'
    assert [line[1:5] for line in cells] == [
        [zero, zero, '-', '-'],
        [zero, zero, '1.0e-05', '-'],
        ['-'] * 4,
    ]
