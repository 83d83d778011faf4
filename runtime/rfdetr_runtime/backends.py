"""One way to run a file, whatever its runtime: arrays in, a dict of arrays out."""

import functools
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .errors import ModelFileError
from .metadata import Metadata

OPENVINO_INFO = 'rfdetr'
"""Where the metadata of an OpenVINO file lie in its runtime information."""
PT2_INFO = 'metadata.json'
"""Where those of a ``.pt2`` lie among its extra files."""


class Backend:
    """A file that is ready to run.

    Args:
        path: of the file.
        metadata: what it says about itself.
        run: called with an input of exactly the batch of the file.

    Attributes:
        tried: whether this runtime was ever run by the tests of this package.
    """

    def __init__(
        self,
        path: str,
        metadata: Metadata,
        run: Callable[[np.ndarray], dict[str, np.ndarray]],
        *,
        tried: bool = True,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.tried = tried
        self._run = run

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the file.

        A file of a fixed batch is called as often as it takes, and its last batch is
        filled up.

        Args:
            images: (B, ...) as :func:`~rfdetr_runtime.preprocess.prepare` makes them.

        Returns:
            Arrays (B, ...) by the name of the output.
        """
        batch = self.metadata.batch
        if batch is None or len(images) == batch:
            return self._run(images)
        parts = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            missing = batch - len(part)
            if missing:
                filler = np.repeat(part[-1:], missing, axis=0)
                part = np.concatenate((part, filler))
            parts.append(
                {name: x[: batch - missing] for name, x in self._run(part).items()}
            )
        return {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}


def open_model(
    path: str | Path,
    *,
    device: str = 'cpu',
    threads: int | None = None,
    precision: str | None = None,
) -> Backend:
    """Open an exported file in its runtime.

    Args:
        path: ``.onnx`` (ONNX Runtime), ``.xml`` (OpenVINO), ``.pt2`` (PyTorch) or
            ``.engine`` (TensorRT, never run by the tests of this package).
        device: ``'cpu'`` or ``'cuda'``; OpenVINO takes its own names, ``'GPU'``.
        threads: of the processor, None for the runtime's choice.
        precision: what the runtime shall compute in, ``'float32'``, ``'bfloat16'`` or
            ``'float16'``, of OpenVINO alone; None is float32, whatever the processor
            would do faster.

    Raises:
        ModelFileError: the file, its metadata or its runtime are missing or cannot be
            used, or the runtime ignores ``precision``.
    """
    path = str(path)
    suffix = Path(path).suffix
    if suffix not in OPENERS:
        raise ModelFileError(
            f'{path} is no exported model: its name ends in none of {sorted(OPENERS)}'
        )
    if not Path(path).is_file():
        raise ModelFileError(f'{path} does not exist (looked from {Path.cwd()})')
    if precision is not None and suffix != '.xml':
        raise ModelFileError(
            f'precision={precision!r} is for OpenVINO files; of {path} the file itself '
            'says it: export it with --precision'
        )
    settings = dict(device=device, threads=threads)
    if suffix == '.xml':
        settings['precision'] = precision
    try:
        return OPENERS[suffix](path, **settings)
    except ModelFileError:
        raise
    except Exception as error:  # each runtime has errors of its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelFileError(f'{path} cannot be opened: {reason[-1]}') from error


def _need(name: str, extra: str) -> ModuleType:
    """Import the package of a runtime.

    Raises:
        ModelFileError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelFileError(
            f'this file needs {name}, which cannot be imported ({error}): pip install '
            f'{extra}'
        ) from error


def import_openvino() -> ModuleType:
    """Import OpenVINO without letting it report that over the network.

    It takes a stand-in of its own where its telemetry package is not installed.
    """
    sys.modules.setdefault('openvino_telemetry', None)
    return _need('openvino', 'openvino')


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's ``Core``: one for the process, which is never freed.

    Its CPU plugin gives the thread that loads it a stack for signal handlers, and takes
    that away when it is freed. If another plugin was loaded meanwhile, or another
    thread frees it, the thread keeps the address of memory that is gone, and the next
    signal that Python hears, of Ctrl-C or of the end of a child, ends the process.
    """
    return import_openvino().Core()


def _open_onnx(path: str, device: str, threads: int | None) -> Backend:
    runtime = _need('onnxruntime', 'onnxruntime')
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    providers = ['CPUExecutionProvider']
    if device != 'cpu':
        providers.insert(0, 'CUDAExecutionProvider')
        if providers[0] not in runtime.get_available_providers():
            raise ModelFileError(
                f'device={device!r}: this onnxruntime knows '
                f'{runtime.get_available_providers()}: install onnxruntime-gpu'
            )
    session = runtime.InferenceSession(path, options, providers)
    strings = session.get_modelmeta().custom_metadata_map
    metadata = Metadata.from_strings(strings, path)
    (source,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {source.name: images}), strict=True))

    return Backend(path, metadata, run)


OPENVINO_TYPES = dict(float32='f32', bfloat16='bf16', float16='f16')
CAPABILITIES = dict(float32='FP32', bfloat16='BF16', float16='FP16')


def _open_openvino(
    path: str, device: str, threads: int | None, precision: str | None
) -> Backend:
    core = openvino_core()
    model = core.read_model(path)
    strings = {}
    if model.has_rt_info([OPENVINO_INFO]):
        values = _value_of(model.get_rt_info([OPENVINO_INFO]))
        strings = {key: str(_value_of(value)) for key, value in values.items()}
    metadata = Metadata.from_strings(strings, path)
    wanted = precision or 'float32'
    if wanted not in OPENVINO_TYPES:
        raise ModelFileError(
            f'precision is one of {list(OPENVINO_TYPES)}, and got {precision!r}'
        )
    device = device.upper()
    offers = core.get_property(device, 'OPTIMIZATION_CAPABILITIES')
    config = {'INFERENCE_PRECISION_HINT': OPENVINO_TYPES[wanted]}
    if threads:
        config['INFERENCE_NUM_THREADS'] = threads
    compiled = core.compile_model(model, device, config)
    done = compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()
    # A processor without the type computes in float32, and some say nothing about it.
    if done != OPENVINO_TYPES[wanted] or CAPABILITIES[wanted] not in offers:
        raise ModelFileError(
            f'precision={wanted!r}: OpenVINO would ignore it on this {device}, which '
            f'offers {offers}, and compute in {done}; leave it out'
        )
    outputs = {output.get_any_name(): output for output in compiled.outputs}

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled(images)
        # Its arrays are views of memory that the next call writes to.
        return {name: results[port].copy() for name, port in outputs.items()}

    return Backend(path, metadata, run)


def _value_of(entry: object) -> object:
    """An entry of OpenVINO's runtime information, which may be wrapped."""
    return getattr(entry, 'value', entry)


def _open_pt2(path: str, device: str, threads: int | None) -> Backend:
    torch = _need('torch', 'torch')
    if threads:
        torch.set_num_threads(threads)
    extra = {PT2_INFO: ''}
    program = torch.export.load(path, extra_files=extra)
    metadata = Metadata.from_strings(json.loads(extra[PT2_INFO] or '{}'), path)
    names = json.loads(extra[PT2_INFO])['outputs'].split()
    module = program.module().to(device)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            results = module(torch.from_numpy(images).to(device))
        return {name: x.cpu().numpy() for name, x in zip(names, results, strict=True)}

    return Backend(path, metadata, run)


def _open_engine(path: str, device: str, threads: int | None) -> Backend:
    """Open a TensorRT engine: written by the book, **never run**, for want of one.

    Its metadata lie in ``FILE.json`` beside it, see ``docs/deployment.md``.
    """
    tensorrt = _need('tensorrt', 'tensorrt, and cuda-python')
    cudart = _need('cuda.bindings.runtime', 'cuda-python')
    beside = Path(path).with_suffix('.json')
    if not beside.is_file():
        raise ModelFileError(
            f'{path} needs its metadata in {beside.name}: see docs/deployment.md'
        )
    metadata = Metadata.from_strings(json.loads(beside.read_text()), path)
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(Path(path).read_bytes())
    if engine is None:
        raise ModelFileError(f'{path} was built by another version of TensorRT')
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    sources = {
        name: engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
        for name in names
    }

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        _, stream = cudart.cudaStreamCreate()
        arrays, pointers = {}, {}
        for name, is_source in sorted(sources.items(), key=lambda item: not item[1]):
            if is_source:
                context.set_input_shape(name, images.shape)
                arrays[name] = np.ascontiguousarray(images)
            else:
                dtype = tensorrt.nptype(engine.get_tensor_dtype(name))
                arrays[name] = np.empty(tuple(context.get_tensor_shape(name)), dtype)
            _, pointers[name] = cudart.cudaMalloc(arrays[name].nbytes)
            context.set_tensor_address(name, pointers[name])
        to_device = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        to_host = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name, is_source in sources.items():
            if is_source:
                source = arrays[name]
                cudart.cudaMemcpyAsync(
                    pointers[name], source.ctypes.data, source.nbytes, to_device, stream
                )
        context.execute_async_v3(stream)
        for name, is_source in sources.items():
            if not is_source:
                target = arrays[name]
                cudart.cudaMemcpyAsync(
                    target.ctypes.data, pointers[name], target.nbytes, to_host, stream
                )
        cudart.cudaStreamSynchronize(stream)
        for pointer in pointers.values():
            cudart.cudaFree(pointer)
        cudart.cudaStreamDestroy(stream)
        return {name: arrays[name] for name, source in sources.items() if not source}

    return Backend(path, metadata, run, tried=False)


OPENERS = {
    '.onnx': _open_onnx,
    '.xml': _open_openvino,
    '.pt2': _open_pt2,
    '.engine': _open_engine,
}
"""What opens a file, by the end of its name."""
