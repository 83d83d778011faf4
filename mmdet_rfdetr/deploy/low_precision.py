"""Half precision and whole numbers, by the packages that are kept up for it."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from openvino import Model

from .packages import need, quietly

SCOPE = 'pkg.torch.onnx.name_scopes'
"""Key under which a node of an ONNX file says which modules it comes from."""
FLOAT_OPERATORS = 'LayerNormalization', 'Softmax', 'GridSample', 'TopK', 'Sigmoid'
"""What stays in float32 in a file of half precision: their sums and places need it."""
FLOAT_PARTS = 'model.bbox_head', 'model.query_selection', 'model.decoder'
"""Modules that int8 leaves out, and with them boxes, scores and what is selected."""
BETWEEN = '', 'network', 'network.model', 'network.model.decoder'
"""Modules whose own arithmetic, on boxes and places, both leave out."""
SINGLE_PARTS = 'model.bbox_head', 'model.query_selection', '.cross_attn'
"""Modules that half precision leaves out: final scores, selection, sampling."""


def to_half(source: Path, path: Path) -> None:
    """Let an ONNX file keep its weights in half, and compute most of it so.

    Inputs and outputs stay what they are.

    Args:
        source: file in float32.
        path: of the new one.
    """
    onnx = need('onnx')
    float16 = need('onnxruntime.transformers.float16', 'onnxruntime')
    model = onnx.load(source)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *FLOAT_OPERATORS]
    with quietly():
        converted = float16.convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=blocked,
            node_block_list=nodes_of(model.graph, SINGLE_PARTS),
        )
    # The converter leaves types of values that it took back, and casts out of order.
    del converted.graph.value_info[:]
    need('onnxruntime.transformers.onnx_model').OnnxModel(converted).topological_sort()
    onnx.checker.check_model(converted, full_check=True)
    onnx.save(converted, path)


def nodes_of(graph, parts: Sequence[str]) -> list[str]:
    """Names of the nodes that come from modules whose names hold one of ``parts``."""
    names = []
    for node in graph.node:
        scopes = [entry.value for entry in node.metadata_props if entry.key == SCOPE]
        modules = ast.literal_eval(scopes[0])[:-1] if scopes else ['']
        own = modules[-1]
        if own in BETWEEN or any(part in own for part in parts):
            names.append(node.name)
    return names


def quantise_openvino(
    model: 'Model', source: Path, inputs: Sequence[np.ndarray]
) -> 'Model':
    """Quantise a model of OpenVINO by NNCF.

    Args:
        model: read from ``source``, whose names of nodes it has.
        source: the ONNX file; the decoder and what is around it stay in float.
        inputs: of single pictures, what it is calibrated with.

    Returns:
        The quantised model.
    """
    nncf = need('nncf', 'openvino', 'onnx')
    names = {*nodes_of(need('onnx').load(source).graph, FLOAT_PARTS)}
    # A node that becomes several gives its name to the last, and a prefix to others.
    there = [node.get_friendly_name() for node in model.get_ops()]
    floats = [name for name in there if name.partition('/')[0] in names]
    with quietly():
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=floats),
        )


def quantise_onnx(source: Path, path: Path) -> None:
    """Quantise an ONNX file by ONNX Runtime: weights, and what comes in as it runs.

    Args:
        source: file in float32.
        path: of the new one; the decoder and what is around it stay in float.
    """
    quantization = need('onnxruntime.quantization', 'onnx')
    names = nodes_of(need('onnx').load(source).graph, FLOAT_PARTS)
    with quietly():
        quantization.quantize_dynamic(
            source,
            path,
            # A Gemm becomes a product of another name and a sum.
            nodes_to_exclude=[*names, *(f'{name}_MatMul' for name in names)],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
        )
