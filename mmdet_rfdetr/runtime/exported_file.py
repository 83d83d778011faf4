"""An exported file in the place of the network: same data, metric and pictures."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor

from ..class_names import compare_classes
from ..data.wrappers import classes_of
from ..errors import ExplainedError, SettingError
from ..precision import PrecisionPolicy
from .checkpoint import instances_of

if TYPE_CHECKING:
    from rfdetr_runtime import Backend

OF_DATA = 'RFDETRBadDataHook', 'RFDETRProgressHook', 'RFDETRSummaryHook'
"""Hooks of this package that look at data or results, and not into a network."""


@MODELS.register_module()
class RFDETRExportedFile(BaseDetector):
    """A detector that asks a file; it can neither be trained nor loaded with weights.

    What goes in is what the file says: its own mean, deviation and order of channels.

    Args:
        file: path, see ``rfdetr_runtime.open_model``.
        threads: of the processor, None for the runtime's choice.
        score_thr: leave out detections whose score is not above it.
        precision: as of ``RFDETR``; what it says for a CPU is asked of OpenVINO.

    Raises:
        ExplainedError: the file cannot be used, or its runtime ignores the precision.
    """

    def __init__(
        self,
        *,
        file: str,
        threads: int | None = None,
        score_thr: float | None = None,
        precision: dict | None = None,
    ) -> None:
        device = torch.device('cpu')
        dtype = PrecisionPolicy.from_config(precision).resolve(device)
        asked = None if dtype == torch.float32 else str(dtype).partition('.')[2]
        opened = open_file(file, threads=threads, precision=asked)
        metadata = opened.metadata
        takes_pixels = metadata.layout in ('detections', 'deepstream')
        normalise = {} if takes_pixels else dict(mean=metadata.mean, std=metadata.std)
        turn = metadata.channel_order == 'RGB'
        super().__init__(dict(type='DetDataPreprocessor', bgr_to_rgb=turn, **normalise))
        self.file = opened
        self.score_thr = score_thr

    def ask(self, batch_inputs: Tensor) -> dict[str, np.ndarray]:
        """Outputs of the file by name, for images (B, 3, H, W) of its data."""
        images = batch_inputs.cpu().numpy()
        if self.file.metadata.layout == 'detections':
            images = np.rint(images.transpose(0, 2, 3, 1)).astype(np.uint8)
        return self.file(np.ascontiguousarray(images))

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Detect; arguments and result are mmdet's."""
        from rfdetr_runtime import find_objects

        key = 'ori_shape' if rescale else 'img_shape'
        results = find_objects(
            self.ask(batch_inputs),
            self.file.metadata,
            [sample.metainfo[key][:2] for sample in batch_data_samples],
            threshold=self.score_thr,
        )
        instances = [instances_of(found) for found in results]
        return self.add_pred_to_datasample(batch_data_samples, instances)

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> dict[str, Tensor]:
        return {key: torch.from_numpy(x) for key, x in self.ask(batch_inputs).items()}

    def extract_feat(self, batch_inputs: Tensor) -> None:
        """Not in a file.

        Raises:
            SettingError: always.
        """
        raise SettingError(f'{self.file.path} is a file, which has no levels to give')

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> None:
        """Not in a file.

        Raises:
            SettingError: always.
        """
        raise SettingError(
            f'{self.file.path} is an exported file, which cannot be trained: train the '
            'model of its config, and export that'
        )

    def __deepcopy__(self, memo: dict) -> 'RFDETRExportedFile':
        """Itself: a session of a runtime has no copy."""
        return self


def open_file(path: str, **settings) -> 'Backend':
    """Open an exported file, see ``rfdetr_runtime.open_model``.

    Raises:
        ExplainedError: it cannot be used.
    """
    from rfdetr_runtime import ModelFileError, open_model

    try:
        return open_model(path, **settings)
    except ModelFileError as error:
        raise ExplainedError(str(error)) from error


def use_file(cfg: Config, path: str, threads: int | None = None) -> None:
    """Let a config test a file in the place of its network, in place.

    Data, metric and pictures stay; the size of the images is that of the file, and what
    concerns the weights of a network is left out.

    Args:
        cfg: a whole config.
        path: of the file.
        threads: of the processor.

    Raises:
        ExplainedError: the file cannot be read, or has other classes than the data.
    """
    metadata = open_file(path).metadata
    classes = classes_of(cfg.test_dataloader)
    if classes and (difference := compare_classes(metadata.names, classes)):
        raise SettingError(
            f'the classes of the test data are not those of {path}: the data '
            f'{difference}. Test it on data with the classes {list(metadata.names)}'
        )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    steps = [step for step in dataset.pipeline if step['type'] == 'RFDETRResize']
    if len(steps) != 1:
        raise SettingError(
            f'{path} takes images of {metadata.input_size}, and the test pipeline has '
            'no single RFDETRResize that could make them: give it one'
        )
    size = tuple(metadata.input_size)
    sides = steps[0].get('sizes') or [steps[0]['image_size']]
    tested = {(x, x) if isinstance(x, int) else tuple(x) for x in sides}
    if tested != {size}:
        print_log(
            f'{path} takes images of {size} (height, width), and the test pipeline '
            f'makes {sorted(tested)}: those of the file are made',
            logger='current',
        )
    steps[0].clear()
    steps[0].update(
        type='RFDETRResize',
        sizes=[size],
        antialias=metadata.resize == 'antialias',
    )
    settings = dict(file=path, threads=threads, precision=cfg.model.get('precision'))
    settings['score_thr'] = (cfg.model.get('test_cfg') or {}).get('score_thr')
    cfg.model = ConfigDict(type='RFDETRExportedFile', **settings)
    cfg.load_from = None
    for name, hook in list((cfg.get('default_hooks') or {}).items()):
        if str(hook['type']).startswith('RFDETR') and hook['type'] not in OF_DATA:
            del cfg.default_hooks[name]
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if 'EMA' not in str(hook['type'])]


def evaluate(cfg: Config, path: str, folder: str | Path) -> dict[str, float]:
    """Test a file, or a checkpoint, on the test data of a config.

    Args:
        cfg: a whole config; it stays as it is.
        path: of the file.
        folder: for what the loop writes.

    Returns:
        The figures of the metric.
    """
    cfg = copy.deepcopy(cfg)
    if Path(path).suffix in ('.pth', '.pt', '.safetensors'):
        cfg.load_from = str(path)
        cfg.model.precision = None
        for switch in ('compile', 'cuda_graphs'):
            cfg.model.pop(switch, None)
    else:
        use_file(cfg, str(path))
    cfg.work_dir = str(folder)
    cfg.resume = False
    cfg.experiment_name = f'{Path(path).name}-{id(cfg)}'  # loggers are kept by name
    return Runner.from_cfg(cfg).test()


def write_config(
    config: str,
    changes: dict | None,
    folder: str,
    file: str | None = None,
    threads: int | None = None,
) -> str:
    """Write a config for another process, with a file in the place of its network.

    Args:
        config: path of the config.
        changes: of it, as by ``--cfg-options``.
        folder: where to.
        file: path of the file; None leaves the network.
        threads: of the processor.

    Returns:
        Path of the new config, named like the file or the old one.
    """
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(changes or {})
    if file is not None:
        use_file(cfg, file, threads)
    target = Path(folder, f'{Path(file).name}.py' if file else Path(config).name)
    cfg.dump(target)
    return str(target)
