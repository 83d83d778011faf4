"""A config and a checkpoint as a model of ``rfdetr_runtime``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.structures import InstanceData

from ..data.transforms import RFDETRResize
from ..errors import SettingError
from ..models.head import RFDETRHead
from .inferring import pipeline_of_test_data

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample
    from rfdetr_runtime import Detections, Detector, Found


POINTS = 'keypoints', 'keypoint_scores', 'keypoint_covariances'
"""What detections of a pose model have besides."""


class CheckpointModel:
    """What ``inference_detector`` computes, for any ``rfdetr_runtime.Detector``.

    Args:
        config: path of a config, or a config.
        checkpoint: path or link.
        device: ``'cpu'``, ``'cuda'``, ...; None takes a GPU if there is one.
        resize: ``'evaluation'``, as the test pipeline says, or ``'official'``, sampled
            without a filter as by ``predict`` of the official package.
        shape: (height, width) of the input, None is that of the test pipeline.

    Raises:
        SettingError: the test pipeline has no resizing that could be changed so.
    """

    def __init__(
        self,
        config: str | Config,
        checkpoint: str | None,
        device: str | None = None,
        resize: str = 'evaluation',
        shape: Sequence[int] | None = None,
    ) -> None:
        from mmdet.apis import init_detector

        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        self.model = init_detector(config, checkpoint, device=device)
        self.names = tuple(self.model.dataset_meta['classes'])
        self.pipeline = _pipeline(self.model.cfg)
        heads = getattr(getattr(self.model, 'bbox_head', None), 'task_heads', {})
        self.scheme = {}
        for head in heads.values():
            about = head.describe(self.model.dataset_meta)
            self.scheme.update(about.get('keypoints', {}))
        if resize != 'evaluation' or shape is not None:
            self._set_resizing(resize, shape)

    def _set_resizing(self, resize: str, shape: Sequence[int] | None) -> None:
        steps = [
            step for step in self.pipeline.transforms if isinstance(step, RFDETRResize)
        ]
        if len(steps) != 1:
            raise SettingError(
                'the input can be changed where the test pipeline has one '
                f'RFDETRResize, and this one has {len(steps)}: leave out --resize and '
                '--shape, or change the config'
            )
        (step,) = steps
        if resize == 'official':
            step.antialias = False
        if shape is not None:
            backbone = self.model.backbone
            divisor = getattr(backbone, 'patch_size', 1)
            divisor *= getattr(backbone, 'num_windows', 1)
            if any(side < 1 or side % divisor for side in shape):
                raise SettingError(
                    f'the sides of the input, {tuple(shape)}, have to be multiples of '
                    f'{divisor} (patch size times windows)'
                )
            step.sizes, step.keep_ratio = [tuple(shape)], False

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        """Send an image (H, W, 3) BGR through the test pipeline."""
        return self.pipeline(dict(img=image, img_id=0))

    def detect(
        self,
        inputs: list[dict[str, Any]],
        sizes: list[tuple[int, int]],
        threshold: float,
        most: int | None,
    ) -> 'list[Found]':
        """Detect in a batch.

        Args:
            inputs: of :meth:`prepare`.
            sizes: not needed, the samples know them.
            threshold: only what has a higher score is given; all with 0.
            most: at most so many of an image.
        """
        data = {key: [each[key] for each in inputs] for key in inputs[0]}
        # The head leaves out what has too low a score before it makes masks; points may
        # change scores.
        head = getattr(self.model, 'bbox_head', None)
        is_known = isinstance(head, RFDETRHead) and not self.scheme
        before = head.test_cfg if is_known else None
        if before is not None and threshold:
            least = max(threshold, before.get('score_thr') or 0)
            head.test_cfg = {**before, 'score_thr': least}
        try:
            with torch.no_grad():
                samples = self.model.test_step(data)
        finally:
            if before is not None:
                head.test_cfg = before
        return [found_of(each.pred_instances, threshold, most) for each in samples]


def _pipeline(cfg: Config) -> Compose:
    """The test pipeline, for arrays."""
    pipeline = pipeline_of_test_data(cfg)
    if pipeline is not None:
        return pipeline
    from mmdet.utils import get_test_pipeline_cfg

    steps = get_test_pipeline_cfg(cfg.copy())
    steps[0].type = 'mmdet.LoadImageFromNDArray'
    return Compose(steps)


def found_of(
    instances: InstanceData, threshold: float | None = None, most: int | None = None
) -> 'Found':
    """Detections of MMDetection as those of ``rfdetr_runtime``.

    Args:
        instances: ``bboxes``, ``scores``, ``labels`` and those of tasks, by score.
        threshold: see :meth:`CheckpointModel.detect`; None or 0 keeps all.
        most: likewise.
    """
    from rfdetr_runtime import Found

    scores = instances.scores.float().cpu().numpy()
    kept = np.arange(len(scores))
    if threshold:
        kept = np.flatnonzero(~(scores <= threshold))  # NaN is seen
    kept = kept[:most]
    masks = instances.get('masks')
    if isinstance(masks, torch.Tensor):
        masks = masks[torch.from_numpy(kept)].cpu().numpy()
    elif masks is not None:  # encoded, of a large picture
        masks = masks[kept].masks.astype(bool)
    return Found(
        instances.bboxes.float().cpu().numpy()[kept],
        scores[kept],
        instances.labels.cpu().numpy()[kept],
        masks,
        **{
            name: instances[name].float().cpu().numpy()[kept]
            for name in POINTS
            if name in instances
        },
    )


def instances_of(found: 'Found') -> InstanceData:
    """The reverse of :func:`found_of`."""
    optional = {
        name: torch.from_numpy(values)
        for name in ('masks', *POINTS)
        if (values := getattr(found, name)) is not None
    }
    return InstanceData(
        bboxes=torch.from_numpy(found.boxes),
        scores=torch.from_numpy(found.scores),
        labels=torch.from_numpy(found.labels),
        **optional,
    )


def to_data_sample(found: 'Detections', shape: tuple[int, int]) -> 'DetDataSample':
    """Detections as MMDetection gives and draws them.

    Args:
        found: of an image; ids become ``instances_id``.
        shape: (height, width) of the image.
    """
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=dict(ori_shape=shape, img_shape=shape))
    sample.pred_instances = instances_of(found)
    if found.ids is not None:
        sample.pred_instances.instances_id = torch.from_numpy(found.ids)
    return sample


def load_detector(
    config: str | Config,
    checkpoint: str | None,
    *,
    device: str | None = None,
    resize: str = 'evaluation',
    shape: Sequence[int] | None = None,
    **settings,
) -> 'Detector':
    """A ``rfdetr_runtime.Detector`` from a config and a checkpoint.

    ::

        detect = load_detector('my_config.py', 'epoch_10.pth', threshold=0.5)
        found = detect('street.jpg')

    Args:
        config: see :class:`CheckpointModel`.
        checkpoint: likewise.
        device: likewise.
        resize: likewise.
        shape: likewise.
        **settings: of ``rfdetr_runtime.Detector``.
    """
    from rfdetr_runtime import Detector

    model = CheckpointModel(config, checkpoint, device, resize, shape)
    return Detector(model, **settings)
