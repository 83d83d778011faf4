"""The whole way: build, export, lower the precision, run, compare, keep or remove."""

import copy
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from rfdetr_runtime import Metadata, prepare
from torch import nn

import mmdet_rfdetr

from ..errors import SettingError
from .agreement import Agreement, table
from .check import Reference, compare, compare_means, require_agreement
from .layouts import LAYOUTS, OFFICIAL_CLASSES
from .low_precision import quantise_onnx, to_half
from .network import DeployedNetwork
from .packages import explained, need
from .pictures import pictures_of
from .settings import (
    SUFFIXES,
    Options,
    Source,
    build_model,
    resize_step,
    sha256,
    test_pipeline,
)
from .signals import handled, leave, unbroken
from .writing import write_deepstream, write_onnx, write_openvino, write_pt2

PACKAGES = dict(
    onnx=('onnx', 'onnxscript', 'onnxruntime'),
    openvino=('onnx', 'onnxscript', 'openvino'),
    pt2=(),
)
PICTURES = 8


def export(
    cfg: Config,
    checkpoint: str | None,
    target: str | Path,
    options: Options,
    *,
    config_name: str = '',
    evaluate: Callable[[Config, str, Path], dict[str, float]] | None = None,
    say: Callable[[str], None] = print,
) -> list[tuple[str, Agreement]]:
    """Write a deployment file and see that it is the model.

    Args:
        cfg: a whole config.
        checkpoint: file of the weights, None for random ones.
        target: file to write; what is there is replaced once the new one is checked.
        options: what is asked for.
        config_name: kept in the file.
        evaluate: tests a checkpoint or a file and gives the figures, which then have to
            agree; called with the config, the path and a folder for logs.
        say: gets lines about what happens.

    Returns:
        Rows of :func:`~.check.compare`.

    Raises:
        ExplainedError: the file differs from the model, or cannot be made; then there
            is none.
        SystemExit: SIGTERM came, in the main thread; then there is none either.
    """
    target = Path(target)
    if target.suffix != SUFFIXES[options.to]:
        raise SettingError(
            f'the name of a file --to {options.to} ends in {SUFFIXES[options.to]}, and '
            f'--out is {target}'
        )
    check_packages(options)
    with step('building the model', say):
        model = build_model(cfg, checkpoint)
        source = Source.of(cfg, model)
        metadata = replace(
            describe(model, source, options),
            config=config_name,
            checkpoint=sha256(checkpoint),
        )
        module = make_layout(model, metadata, options)
    with (
        folder_of(target),
        handled(leave, signal.SIGTERM),
        tempfile.TemporaryDirectory(dir=target.parent, prefix='.export-') as folder,
    ):
        path = Path(folder, target.name)
        with step(f'exporting {metadata.summary()}', say):
            write(
                module,
                metadata,
                path,
                options,
                lambda: inputs_of(cfg, metadata, options),
            )
        if options.layout == 'deepstream':
            write_deepstream(path, metadata)
        with step('running it beside the model', say), explained():
            pictures = pictures_of(cfg, PICTURES)
            reference = Reference(model, metadata)
            rows = compare(str(path), reference, pictures, layout=options.layout)
        require_agreement(rows, options.precision)
        say(table(rows))
        if evaluate is not None:
            logs = Path(folder, 'logs')
            sized = with_shape(cfg, metadata)
            figures = [evaluate(sized, each, logs) for each in (checkpoint, str(path))]
            shutil.rmtree(logs)
            say(compare_means(*figures, options.precision))
        with unbroken():
            for made in Path(folder).iterdir():
                made.chmod(0o644)
                made.replace(target.parent / made.name)
    return rows


@contextmanager
def folder_of(target: Path) -> Iterator[None]:
    """Make the folder of a file; a new one that stays empty goes again."""
    is_new = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new and not any(target.parent.iterdir()):
            target.parent.rmdir()


def with_shape(cfg: Config, metadata: Metadata) -> Config:
    """A config whose test pipeline makes images of the size of a file."""
    sized = copy.deepcopy(cfg)
    resize = resize_step(test_pipeline(sized))
    resize.clear()
    resize.update(
        type='RFDETRResize',
        sizes=[tuple(metadata.input_size)],
        antialias=metadata.resize == 'antialias',
    )
    return sized


@contextmanager
def step(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say what is done, and how long it took."""
    say(f'{what} ...')
    start = time.monotonic()
    yield
    say(f'  {time.monotonic() - start:.0f} s')


def check_packages(options: Options) -> None:
    """See that all packages are there before any work.

    Raises:
        MissingPackageError: one is not.
    """
    names = list(PACKAGES[options.to])
    if options.precision == 'int8' and options.to == 'openvino':
        names.append('nncf')
    if names:
        need(*names)


def describe(model: nn.Module, source: Source, options: Options) -> Metadata:
    """What the file will say about itself, as the runtime package's ``Metadata``."""
    names = source.names
    pairs = model.num_queries * len(names)
    has_column = options.layout == 'official' and len(names) != OFFICIAL_CLASSES
    of_tasks = {}
    for head in model.bbox_head.task_heads.values():
        of_tasks.update(head.describe(model.dataset_meta))
    return Metadata(
        names=names,
        input_size=options.shape or source.shape,
        mean=source.mean,
        std=source.std,
        channel_order='RGB' if source.rgb else 'BGR',
        resize='antialias' if source.antialias else 'sample',
        layout=options.layout,
        background=len(names) if has_column else None,
        max_detections=min(model.bbox_head.test_cfg['max_per_img'], pairs),
        batch=options.batch,
        stride=source.stride,
        precision=options.precision,
        package=f'mmdet_rfdetr {mmdet_rfdetr.__version__}',
        notes=options.notes,
        **of_tasks,
    )


def make_layout(model: nn.Module, metadata: Metadata, options: Options) -> nn.Module:
    """The module that is exported, in evaluation mode."""
    return LAYOUTS[options.layout](
        DeployedNetwork(model, metadata.input_size),
        num_classes=len(metadata.names),
        count=metadata.max_detections,
        mean=metadata.mean,
        std=metadata.std,
        image_size=metadata.input_size,
    ).eval()


def write(
    module: nn.Module,
    metadata: Metadata,
    path: Path,
    options: Options,
    calibration: Callable[[], list[np.ndarray]],
) -> None:
    """Write the file in the precision that is asked for.

    Args:
        module: a layout.
        metadata: of the file.
        path: of the file, in a folder of its own.
        options: what is asked for.
        calibration: gives inputs of single pictures.
    """
    # Of one image alone the tracer would take the batch for a constant.
    batch = metadata.batch or 2
    example = torch.from_numpy(
        prepare([np.zeros((8, 8, 3), np.uint8)] * batch, metadata)
    )
    with torch.no_grad():
        module(example)  # what does not fit is said here, not in a trace of the graph
    strings = metadata.to_strings()
    if options.to == 'pt2':
        write_pt2(module, example, path, strings)
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain = Path(folder, 'plain.onnx')
        write_onnx(module, example, plain, strings)
        if options.to == 'openvino':
            write_openvino(plain, path, strings, calibration)
        elif options.precision == 'fp16':
            to_half(plain, path)
        elif options.precision == 'int8':
            quantise_onnx(plain, path)
        else:
            shutil.copyfile(plain, path)


def inputs_of(cfg: Config, metadata: Metadata, options: Options) -> list[np.ndarray]:
    """Inputs of single pictures to calibrate with, of the training data if there."""
    pictures = pictures_of(cfg, options.calibrate, loader='train')
    return [prepare([picture], metadata) for picture in pictures]
