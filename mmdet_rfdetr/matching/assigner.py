"""Hungarian matching of all images, decoder stages and groups in one call."""

from collections.abc import Iterable

import torch
from mmdet.registry import TASK_UTILS

from ..errors import SettingError
from .costs import pair_costs
from .solver import SOLVERS
from .stages import Matches, Stages, Targets


@TASK_UTILS.register_module()
class RFDETRHungarianAssigner:
    """Match each object to one query of every group, at the lowest total cost.

    The cost of a pair is ``cls_weight`` times a focal classification cost, plus
    ``bbox_weight`` times the L1 distance of the normalised boxes, minus
    ``iou_weight`` times their GIoU, plus what the task heads of the model add. All
    costs of a batch are computed together in float32 and brought to the host in one
    transfer.

    Args:
        cls_weight: weight of the classification cost.
        bbox_weight: weight of the L1 cost.
        iou_weight: weight of the GIoU cost.
        alpha: balance of the focal cost.
        solver: what finds the pairs, a key of :data:`.solver.SOLVERS`; they are the
            same with all of them.

    Raises:
        SettingError: if the solver is unknown.
    """

    def __init__(
        self,
        *,
        cls_weight: float = 2.0,
        bbox_weight: float = 5.0,
        iou_weight: float = 2.0,
        alpha: float = 0.25,
        solver: str = 'scipy',
    ) -> None:
        if solver not in SOLVERS:
            raise SettingError(
                f'model.train_cfg.assigner.solver={solver!r}: choose one of '
                f'{tuple(SOLVERS)}'
            )
        self.cls_weight = cls_weight
        self.bbox_weight = bbox_weight
        self.iou_weight = iou_weight
        self.alpha = alpha
        self.solver = solver
        self._solver = SOLVERS[solver]()

    def prepare(self, targets: Targets, queries: int) -> Targets:
        """Bring the objects into the form that the solver takes.

        Args:
            targets: of a batch.
            queries: fewest queries of a group in any stage.
        """
        return self._solver.prepare(targets, queries)

    @torch.no_grad()
    def assign(
        self, stages: Stages, targets: Targets, task_heads: Iterable = ()
    ) -> Matches:
        """Match.

        Args:
            stages: outputs of the network; the size of each stage divides by the
                number of groups, and every object is matched once in each group.
            targets: the objects of the B images.
            task_heads: what else has a cost, see ``TaskHead.add_costs``.

        Returns:
            The pairs, ``min(queries of a group, objects)`` for each image, group
            and stage.
        """
        objects = targets.padded_index()
        costs = pair_costs(
            stages.logits,
            stages.boxes,
            targets.labels[objects],
            targets.boxes[objects],
            cls_weight=self.cls_weight,
            bbox_weight=self.bbox_weight,
            iou_weight=self.iou_weight,
            alpha=self.alpha,
        )
        for head in task_heads:
            head.add_costs(costs, stages, targets, objects)
        return self._solver.match(costs, stages.sizes, stages.num_groups, targets)
