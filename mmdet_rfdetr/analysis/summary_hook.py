"""A hook that leaves pictures of what a run did in its work folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine import fileio
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from ..data.images import decode_image
from ..errors import BadImageError

# In the message hub, which is saved in checkpoints: a resumed run goes on.
_METRICS = 'rfdetr_validation_metrics'


@HOOKS.register_module()
class RFDETRSummaryHook(Hook):
    """Draw detections and the training curve when training or testing is over.

    ``detections.png`` shows the first images of the last validation or test with
    ground truth and predictions side by side; ``training_curve.png`` the loss, the
    validation metrics and the learning rate. Both go to the work folder.

    Args:
        num_images: number of images to show.
        score_thr: least score of a prediction to be drawn.
    """

    def __init__(self, num_images: int = 12, score_thr: float = 0.3) -> None:
        self.num_images = num_images
        self.score_thr = score_thr
        self._samples: list[DetDataSample] = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the images of the last time."""
        self._samples = []

    before_test_epoch = before_val_epoch

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[DetDataSample] | None = None,
    ) -> None:
        """Keep the first images and what was detected in them."""
        missing = self.num_images - len(self._samples)
        for sample in (outputs or [])[:missing]:
            self._samples.append(_confident(sample, self.score_thr).cpu())

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Keep the metrics for the curve."""
        history = runner.message_hub.runtime_info.get(_METRICS, [])
        history = [*history, (runner.iter, dict(metrics or {}))]
        runner.message_hub.update_info(_METRICS, history)

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draw the detections of the test."""
        _tell_of(self._draw_detections(runner))

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Draw the curve, and the detections of the last validation."""
        _tell_of(self._draw_curve(runner), self._draw_detections(runner))

    def _draw_curve(self, runner: Runner) -> Path | None:
        from .curve import training_curve

        scalars = runner.message_hub.log_scalars
        if 'train/loss' not in scalars:
            return None
        losses, _ = scalars['train/loss'].data
        rates, _ = scalars['train/lr'].data
        metrics: dict[str, list[tuple[int, float]]] = {}
        for iteration, values in runner.message_hub.runtime_info.get(_METRICS, []):
            for name, value in values.items():
                if name.endswith(('mAP', 'mAP_50')):
                    metrics.setdefault(name, []).append((iteration, value))
        path = Path(runner.work_dir) / 'training_curve.png'
        training_curve(np.asarray(losses), np.asarray(rates), metrics).savefig(path)
        return path

    def _draw_detections(self, runner: Runner) -> Path | None:
        if not self._samples:
            return None
        from .drawn_detections import class_colours, draw_boxes, picture_grid

        meta = runner.visualizer.dataset_meta or {}
        meta = meta[0] if isinstance(meta, list) else meta  # of mmdet's ConcatDataset
        classes = meta.get('classes', ())
        colours = class_colours(meta.get('palette'), len(classes))
        more = dict(draw_points=getattr(runner.visualizer, 'draw_points', None))
        pictures = [
            draw_boxes(read_image(sample), instances, classes, colours, **more)
            for sample in self._samples
            for part in ('gt_instances', 'pred_instances')
            for instances in [sample.get(part, InstanceData())]
        ]
        width = 2 * min(2, len(self._samples))  # two images in a row
        rows = [
            pictures[start : start + width] for start in range(0, len(pictures), width)
        ]
        headings = ['ground truth', f'detections, score {self.score_thr} and above']
        path = Path(runner.work_dir) / 'detections.png'
        picture_grid(rows, headings * (width // 2)).save(path)
        return path


def _tell_of(*paths: Path | None) -> None:
    names = ' and '.join(str(path) for path in paths if path is not None)
    if names:
        print_log(f'Look at {names}', logger='current')


def read_image(sample: DetDataSample) -> np.ndarray:
    """The image of a sample as the pipeline read it, (H, W, 3) BGR.

    A black one stands for a file that cannot be read.
    """
    size = sample.ori_shape[:2]
    try:
        return decode_image(fileio.get(sample.img_path), size)
    except (OSError, BadImageError):
        return np.zeros((*size, 3), np.uint8)


def _confident(sample: DetDataSample, score_thr: float) -> DetDataSample:
    """A copy without the weak predictions: masks of all would fill the memory."""
    found = sample.pred_instances
    sample = sample.new()
    if 'scores' in found:
        sample.pred_instances = found[found.scores >= score_thr]
    return sample
