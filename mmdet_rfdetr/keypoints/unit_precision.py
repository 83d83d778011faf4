"""Fine-tuning keypoints begins as certain of its points as a fresh model."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .keypoint_head import RFDETRKeypointHead


@HOOKS.register_module()
class RFDETRUnitPrecisionHook(Hook):
    """Set the precision of all points to one where a run begins with ``load_from``.

    The official package does so after it has loaded weights to train on: what they know
    of their errors holds for other pictures. A run that is resumed goes on as it was.
    """

    def before_train(self, runner: Runner) -> None:
        """Reset the heads of the model; a moving average starts as its copy."""
        if runner._load_from is None or runner._resume:
            return
        for module in runner.model.modules():
            if isinstance(module, RFDETRKeypointHead):
                module.reset_precision()
