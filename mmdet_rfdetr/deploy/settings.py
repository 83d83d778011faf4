"""What is exported: the options, and the facts that a config and a model hold."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from ..class_names import show_classes
from ..data.wrappers import classes_of, innermost
from ..errors import SettingError, check_counts

SUFFIXES = dict(onnx='.onnx', openvino='.xml', pt2='.pt2')
PRECISIONS = 'fp32', 'fp16', 'int8'


@dataclass(frozen=True)
class Options:
    """What the user asks for.

    Args:
        to: ``'onnx'``, ``'openvino'`` or ``'pt2'``.
        layout: a key of ``LAYOUTS``.
        batch: images of a call, None for any number.
        shape: (H, W) of the input, None for that of the config's test pipeline.
        precision: ``'fp32'``, ``'fp16'`` or ``'int8'``.
        calibrate: pictures that int8 is calibrated with.
        notes: the user's own words, kept in the file.

    Raises:
        SettingError: if two of them do not go together.
    """

    to: str = 'onnx'
    layout: str = 'official'
    batch: int | None = 1
    shape: tuple[int, int] | None = None
    precision: str = 'fp32'
    calibrate: int = 30
    notes: str = ''

    def __post_init__(self) -> None:
        check_counts(batch=1 if self.batch is None else self.batch)
        check_counts(calibrate=self.calibrate)
        for side in self.shape or ():
            check_counts(shape=side)
        if self.to == 'pt2' and self.precision != 'fp32':
            raise SettingError(
                f'--to pt2 and --precision {self.precision} do not go together: a .pt2 '
                'keeps the weights in float32; export --to onnx or openvino'
            )
        if self.layout == 'deepstream' and self.to != 'onnx':
            raise SettingError(
                f'--layout deepstream and --to {self.to} do not go together: '
                'DeepStream reads ONNX files'
            )


def default_target(checkpoint: str, options: Options) -> Path:
    """Beside the checkpoint, named like it; OpenVINO's files have a folder."""
    precision = '' if options.precision == 'fp32' else f'-{options.precision}'
    stem = Path(checkpoint).stem + precision
    folder = Path(checkpoint).parent
    if options.to == 'openvino':
        folder = folder / f'{stem}_openvino_model'
    return folder / (stem + SUFFIXES[options.to])


def build_model(cfg: Config, checkpoint: str | None) -> nn.Module:
    """The config's model in float32 on the CPU, with the weights of a checkpoint.

    Args:
        cfg: a whole config; switches for speed are left out of its model.
        checkpoint: file, None for random weights.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    settings = {
        key: value
        for key, value in cfg.model.items()
        if key not in ('compile', 'cuda_graphs')
    }
    model = MODELS.build(dict(settings, precision=None))
    # Rows of a checkpoint are taken by the names of the classes.
    about = next(innermost(cfg.test_dataloader)).get('metainfo') or {}
    model.dataset_meta = dict(about, classes=classes_of(cfg.test_dataloader))
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, map_location='cpu')
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Source:
    """What the config says of input and classes.

    Args:
        shape: (H, W) of the input of the test pipeline.
        antialias: whether its resizing filters.
        mean: of each channel.
        std: likewise.
        rgb: whether the channels are turned from BGR.
        names: of the classes.
        stride: what the sides of the input divide by.
    """

    shape: tuple[int, int]
    antialias: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rgb: bool
    names: tuple[str, ...]
    stride: int

    @classmethod
    def of(cls, cfg: Config, model: nn.Module) -> 'Source':
        """Read config and model.

        Raises:
            SettingError: if the test pipeline does not make inputs of one size, or
                images have other than three channels.
        """
        resize = resize_step(test_pipeline(cfg))
        if resize is None or resize.get('keep_ratio'):
            raise SettingError(
                'a file takes images of one size, and the test pipeline of this config '
                f'has the step {resize}: give it one RFDETRResize with image_size, or '
                'with sizes=[(height, width)], and keep_ratio=False'
            )
        size = resize.get('image_size') or resize['sizes'][0]
        preprocessor = model.data_preprocessor
        if (channels := cfg.model.backbone.get('in_channels', 3)) != 3:
            raise SettingError(
                f'model.backbone.in_channels={channels}: a file takes pictures of '
                'three channels, as its readers do; deploy such a model in PyTorch, '
                'by switch_to_deploy()'
            )
        mean, std = [0.0] * 3, [1.0] * 3
        if getattr(preprocessor, '_enable_normalize', False):
            mean, std = (
                x.flatten().tolist() for x in (preprocessor.mean, preprocessor.std)
            )
        return cls(
            shape=(size, size) if isinstance(size, int) else tuple(size),
            antialias=resize.get('antialias', True),
            mean=tuple(mean),
            std=tuple(std),
            rgb=bool(preprocessor._channel_conversion),
            names=_names(model),
            stride=cfg.model.data_preprocessor.get('pad_size_divisor', 1),
        )


def _names(model: nn.Module) -> tuple[str, ...]:
    """Names of the classes, as many as the model has outputs."""
    count = model.bbox_head.num_classes
    names = tuple((model.dataset_meta or {}).get('classes') or ())
    if len(names) != count:
        raise SettingError(
            f'the test data has the classes {show_classes(names)}, and '
            f'model.bbox_head.num_classes is {count}: name all of them in '
            'test_dataloader.dataset.metainfo.classes'
        )
    return names


def test_pipeline(cfg: Config) -> Sequence[dict]:
    """Steps of the test data; a change of one changes the config."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset.pipeline


def resize_step(pipeline: Sequence[dict]) -> dict | None:
    """The step that resizes, if there is one alone."""
    steps = [step for step in pipeline if step['type'] == 'RFDETRResize']
    return steps[0] if len(steps) == 1 else None


def sha256(path: str | Path | None) -> str:
    """Hash of a file, empty for none."""
    if path is None:
        return ''
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
