"""Writing a file: ONNX, OpenVINO or an exported program of PyTorch."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from rfdetr_runtime import Metadata
from torch import Tensor, nn

from .low_precision import SCOPE, quantise_openvino
from .packages import need, quietly

OPSET = 20
"""Has one operator for GELU; the newest that TensorRT 10 reads."""


def write_onnx(
    module: nn.Module, example: Tensor, path: Path, strings: Mapping[str, str]
) -> None:
    """Write an ONNX file with the weights inside.

    Args:
        module: a layout.
        example: an input; its batch is that of the file.
        path: of the file.
        strings: its metadata; ``dynamic`` says whether any batch is taken.
    """
    onnx = need('onnx', 'onnxscript')
    # With gradients on, what a module does without them becomes a graph of its own,
    # whose nodes no longer say which modules they come from.
    with quietly(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[module.input_name],
            output_names=list(module.output_names),
            dynamic_shapes=_dynamic_shapes(strings),
            verbose=False,
        )
    model = program.model_proto
    for node in model.graph.node:
        scopes = [entry for entry in node.metadata_props if entry.key == SCOPE]
        del node.metadata_props[:]  # among them the paths of this machine's sources
        node.metadata_props.extend(scopes)
        node.doc_string = ''
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    model.producer_name, model.producer_version = strings['package'].split()
    onnx.helper.set_model_props(model, dict(strings))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _dynamic_shapes(strings: Mapping[str, str]) -> tuple | None:
    if strings['dynamic'] == 'false':
        return None
    return ({0: torch.export.Dim('batch', min=1)},)


def write_openvino(
    source: Path,
    path: Path,
    strings: Mapping[str, str],
    calibration: Callable[[], list[np.ndarray]],
) -> None:
    """Write an OpenVINO file, ``.xml`` with ``.bin`` beside, of an ONNX file.

    ``metadata.yaml`` beside them is what Ultralytics' readers look for.

    Args:
        source: the ONNX file, in float32.
        path: of the ``.xml``.
        strings: its metadata; ``precision`` fp16 stores the weights in half.
        calibration: gives inputs of single pictures, for ``precision`` int8.
    """
    openvino = need('openvino')
    model = openvino.Core().read_model(source)
    if strings['precision'] == 'int8':
        model = quantise_openvino(model, source, calibration())
    make_top_k_stable(model)
    for key, value in strings.items():
        model.set_rt_info(value, ['rfdetr', key])
    half = strings['precision'] == 'fp16'
    openvino.save_model(model, path, compress_to_fp16=half)
    lines = (f'{key}: {json.dumps(value)}' for key, value in _as_yaml(strings).items())
    path.with_name('metadata.yaml').write_text('\n'.join(lines) + '\n')


def _as_yaml(strings: Mapping[str, str]) -> dict:
    """The values of text, as a YAML file keeps them; JSON is YAML."""
    names = json.loads(strings['class_names'])
    whole = {key: int(strings[key]) for key in ('stride', 'batch', 'channels')}
    return dict(
        strings,
        **whole,
        names=dict(enumerate(names)),
        imgsz=json.loads(strings['imgsz']),
        end2end=strings['end2end'] == 'True',
        dynamic=strings['dynamic'] == 'true',
    )


def make_top_k_stable(model) -> None:
    """Let equal scores be taken by their index, as in the model of PyTorch.

    ONNX promises it, and OpenVINO reads that promise away.
    """
    openvino = need('openvino')
    for node in model.get_ops():
        if node.get_type_name() == 'TopK':
            attributes = node.get_attributes()
            stable = openvino.opset11.topk(
                node.input_value(0),
                node.input_value(1),
                attributes['axis'],
                attributes['mode'],
                'value',
                attributes['index_element_type'],
                stable=True,
            )
            stable.set_friendly_name(node.get_friendly_name())
            for old, new in zip(node.outputs(), stable.outputs(), strict=True):
                new.get_tensor().set_names(old.get_tensor().get_names())
                old.replace(new)


def write_pt2(
    module: nn.Module, example: Tensor, path: Path, strings: Mapping[str, str]
) -> None:
    """Write an exported program, which needs PyTorch and nothing else.

    Arguments are those of :func:`write_onnx`.
    """
    with quietly(), torch.no_grad():
        program = torch.export.export(
            module, (example,), dynamic_shapes=_dynamic_shapes(strings)
        )
        content = dict(strings, outputs=' '.join(module.output_names))
        extra = {'metadata.json': json.dumps(content)}
        torch.export.save(program, path, extra_files=extra)


def write_deepstream(path: Path, metadata: Metadata) -> None:
    """Write beside a file what DeepStream reads: labels, and settings of nvinfer.

    The parser is that of DeepStream-Yolo, whose rows are those of the layout; its
    library has to be built there.

    Args:
        path: of the ONNX file.
        metadata: of the file.
    """
    labels = path.with_name(f'{path.stem}_labels.txt')
    labels.write_text(''.join(f'{name}\n' for name in metadata.names))
    settings = {
        'onnx-file': path.name,
        'labelfile-path': labels.name,
        'infer-dims': ';'.join(map(str, (len(metadata.mean), *metadata.input_size))),
        'batch-size': metadata.batch or 1,
        'net-scale-factor': 1,  # the graph normalises
        'model-color-format': int(metadata.channel_order == 'BGR'),
        'network-type': 0,
        'network-mode': 0,
        'num-detected-classes': len(metadata.names),
        'maintain-aspect-ratio': 0,
        'cluster-mode': 4,  # none: there are no duplicates
        'parse-bbox-func-name': 'NvDsInferParseYolo',
        'custom-lib-path': 'libnvdsinfer_custom_impl_Yolo.so',
    }
    lines = [f'{key}={value}' for key, value in settings.items()]
    text = '\n'.join(('[property]', *lines, '', '[class-attrs-all]'))
    config = path.with_name(f'{path.stem}_nvinfer.txt')
    config.write_text(f'{text}\npre-cluster-threshold=0.3\n')
