"""Half precision and whole numbers: a trained model through each runtime."""

import sys

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from rfdetr_runtime import Found, open_model, prepare

import mmdet_rfdetr
from mmdet_rfdetr.deploy import exporting
from mmdet_rfdetr.deploy.agreement import TOLERANCES, Agreement, undecided
from mmdet_rfdetr.deploy.check import compare_means, require_agreement
from mmdet_rfdetr.deploy.low_precision import FLOAT_PARTS, SINGLE_PARTS, nodes_of
from mmdet_rfdetr.deploy.pictures import pictures_of
from mmdet_rfdetr.deploy.settings import Options, build_model
from mmdet_rfdetr.errors import ExplainedError
from mmdet_rfdetr.runtime.exported_file import evaluate
from tests.interpreter import run
from tests.runs import forget_runs
from tests.test_deploy.project import SUFFIXES, graphs_made_once
from tests.test_deploy.stressed import stressed

ROWS = [
    dict(to=to, precision=precision)
    for precision in ('fp32', 'fp16', 'int8')
    for to in ('onnx', 'openvino')
]


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


@pytest.mark.slow
def test_a_trained_model_detects_as_well_through_every_runtime(tmp_path, monkeypatch):
    """Its table, with ``-s``, is that of docs/deployment.md."""
    cfg, weights = trained_demo(tmp_path)
    monkeypatch.setattr(exporting, 'PICTURES', 60)
    forget_runs()
    model = evaluate(cfg, weights, tmp_path / 'logs')
    assert model['coco/bbox_mAP_50'] > 0.2
    lines = []
    for row in ROWS:
        options = Options(batch=None, **row)
        path = tmp_path / row['precision'] / f'demo{SUFFIXES[row["to"]]}'
        with graphs_made_once(tmp_path):
            parts = exporting.export(cfg, weights, path, options)
        whole = Agreement()
        for _, one in parts:
            whole = whole.join(one)
        forget_runs()
        file = evaluate(cfg, str(path), tmp_path / 'logs')
        compare_means(model, file, row['precision'])
        data = path.with_suffix('.bin')
        size = path.stat().st_size + (data.stat().st_size if data.exists() else 0)
        lines.append(
            f'{row} mAP {file["coco/bbox_mAP"]:.4f} of {model["coco/bbox_mAP"]:.4f}, '
            f'kept {whole.kept} of {whole.wanted}, score {whole.score:.1e}, '
            f'IoU {np.mean(whole.ious):.4f}, {size / 1e6:.1f} MB'
        )
        assert whole.wanted >= 60
    outliers = tmp_path / 'outliers.pth'
    model = build_model(cfg, weights)
    inputs = prepare(pictures_of(cfg, 8), open_model(path).metadata)
    torch.save(stressed(model, torch.from_numpy(inputs)).state_dict(), outliers)
    half = Options(batch=None, precision='fp16')
    exporting.export(cfg, str(outliers), tmp_path / 'outliers.onnx', half)
    print('', *lines, sep='\n')


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
