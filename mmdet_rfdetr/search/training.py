"""Training: the sub-net of every step, and batches of its size."""

from mmdet.registry import HOOKS, MODELS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ..checkpoints.layout import INFO_KEY
from ..data.multi_scale import RFDETRBatchMultiScale
from ..errors import SettingError
from ..ops.unwrapped import unwrap_model
from .space import Subnet
from .supernet import by_operations, reset_subnet, set_subnet

DRAWS = ('uniform', 'sandwich')


@MODELS.register_module()
class RFDETRBatchSubnetSize(RFDETRBatchMultiScale):
    """Resize every training batch to the size of the present sub-net.

    The pipeline should hand over about the largest size. Shrinking is antialiased,
    since a small sub-net has less than half of that.
    """

    antialias = True

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.image_size = 0

    def size_at(self, step: int) -> int:
        """The size, whatever the step."""
        return self.image_size

    def forward(self, inputs, data_samples):
        """Resize a batch; see the class it inherits from."""
        if not self.image_size:  # no sub-net is set
            return inputs, data_samples
        return super().forward(inputs, data_samples)


@HOOKS.register_module()
class RFDETRSubnetHook(Hook):
    """Train another sub-net in every step.

    Draws depend on the seed and the number of the optimizer step alone: all processes
    have the same one, and so has a run that is resumed.

    Args:
        draw: ``'uniform'`` trains one sub-net in an optimizer step; ``'sandwich'`` the
            largest in its first micro-batch, the smallest in its second, and another
            one that is drawn in each of the others.
        seed: other seeds give other draws.
        interval: iterations from one line of the log that names a sub-net to the next.

    Raises:
        SettingError: the draw is unknown.
    """

    # Before hooks that look at the model of the step.
    priority = 'VERY_HIGH'

    def __init__(
        self, draw: str = 'uniform', seed: int = 0, interval: int = 50
    ) -> None:
        if draw not in DRAWS:
            raise SettingError(f'RFDETRSubnetHook.draw={draw!r} must be one of {DRAWS}')
        self.draw = draw
        self.seed = seed
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """See that the run can train one sub-net after the other.

        Raises:
            SettingError: naming the setting that is in the way.
        """
        model = unwrap_model(runner.model)
        self._counts = runner.optim_wrapper._accumulative_counts
        self._check(model)
        if self.draw == 'sandwich':
            ordered = by_operations(model)
            self._ends = ordered[-1], ordered[0]

    def _check(self, model: nn.Module) -> None:
        if not hasattr(model, 'search_space'):
            raise SettingError(
                'RFDETRSubnetHook draws from model.search_space: set it, or leave the '
                'hook out (default_hooks.subnet=None)'
            )
        if self.draw == 'sandwich' and self._counts < 3:
            raise SettingError(
                f"draw='sandwich' with optim_wrapper.accumulative_counts="
                f'{self._counts}: it takes 3 or more, for the largest, the smallest '
                "and a drawn sub-net; or set draw='uniform'"
            )
        augments = [*model.data_preprocessor.modules()]
        resizers = [x for x in augments if isinstance(x, RFDETRBatchMultiScale)]
        if [type(x) for x in resizers] != [RFDETRBatchSubnetSize]:
            raise SettingError(
                f'data_preprocessor.batch_augments resize by '
                f'{[type(x).__name__ for x in resizers]}: set the list to '
                "[dict(type='RFDETRBatchSubnetSize')], which follows the draws"
            )
        if getattr(model, 'step_graphs', None) is not None:
            raise SettingError(
                'model.cuda_graphs=True records the step of one model, and each draw '
                'is another: leave it out'
            )
        compilation = getattr(model, 'compilation', None)
        if compilation is not None and 'backbone' in compilation.parts:
            raise SettingError(
                f'model.compile={compilation} compiles the backbone anew for each draw '
                'and gives up after a few: leave backbone out of model.compile.parts'
            )

    def subnet_of(self, model: nn.Module, iteration: int) -> Subnet:
        """The sub-net that an iteration trains."""
        step, number = divmod(iteration, self._counts)
        if self.draw == 'uniform':
            return model.search_space.draw(self.seed, step)
        if number < 2:
            return self._ends[number]
        return model.search_space.draw(self.seed, step, number)

    def before_train_iter(self, runner: Runner, batch_idx, data_batch=None) -> None:
        """Set the sub-net of this iteration."""
        model = unwrap_model(runner.model)
        subnet = self.subnet_of(model, runner.iter)
        set_subnet(model, subnet)
        note = f', sub-net {subnet.name}'
        runner.message_hub.update_info('step', note, resumed=False)
        if self.every_n_train_iters(runner, self.interval):
            runner.logger.info(f'Iteration {runner.iter + 1}{note}')

    def after_train_epoch(self, runner: Runner) -> None:
        """Leave the model as it is stored, for what else looks at it."""
        reset_subnet(unwrap_model(runner.model))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Say in the checkpoint what else it is."""
        space = unwrap_model(runner.model).search_space.as_dict()
        checkpoint['meta'].setdefault(INFO_KEY, {})['search_space'] = space
