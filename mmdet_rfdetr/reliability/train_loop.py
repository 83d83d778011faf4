"""A training loop that can be left at any step and entered again there."""

import bisect
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice

from mmdet.datasets.samplers import MultiSourceSampler
from mmdet.registry import LOOPS
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook, EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Sampler

from ..errors import EXIT_INTERRUPTED, ExplainedError, ResumeError, check_counts
from .checkpoint_hook import RFDETRCheckpointHook
from .interruption import InterruptedRunError, Interruption
from .processes import require_same_start
from .random_state import capture_random_state, restore_random_state, seeded
from .resumable_batches import RFDETRResumableBatchSampler, with_resumable_batches
from .workers import with_tied_workers


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epoch: epochs that are complete.
        batches: batches of the next epoch that are done.
        validation_due: whether the last complete epoch is still to be validated.
    """

    epoch: int = 0
    batches: int = 0
    validation_due: bool = False


@LOOPS.register_module()
class RFDETRTrainLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, which loses nothing when it is resumed.

    It takes the same arguments. With ``RFDETRCheckpointHook`` a checkpoint holds the
    random states of all processes, the place in the epoch, whether the epoch has been
    validated, the early stopping's count, and the gradients of an unfinished optimizer
    step; a resumed run goes on from there with the same numbers.

    With that hook SIGTERM and SIGINT end the run after the optimizer step (a validation
    is given up), with a checkpoint ``interrupted.pth`` and the exit code 75. Without it
    they end it at once, as in any other program.

    Args:
        runner: the runner.
        dataloader: config of the training data loader. A loader that is built already
            is used as it is: resumed inside an epoch it loads what is done once more,
            and augments what follows otherwise.
        max_epochs: see mmengine, as for the others.
        val_begin: the first epoch that is validated.
        val_interval: epochs from one validation to the next.
        dynamic_intervals: other intervals from some epoch on.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        if isinstance(dataloader, dict):
            dataloader = with_resumable_batches(dataloader, runner.seed)
        if isinstance(runner, Runner):  # mmengine's FlexibleRunner takes no function
            seed = runner.seed
            dataloader = with_tied_workers(dataloader, seed)
            # That of the validation is built after this loop.
            runner._val_dataloader = with_tied_workers(runner._val_dataloader, seed)
        super().__init__(
            runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals
        )
        self._batches = self.dataloader.batch_sampler
        self._check_epochs()
        self.position = Position()
        self._interruption = Interruption()
        self._common_val_batches = 0
        # With which training goes on, where that is not the present one.
        self._random_state: dict | None = None

    def _check_epochs(self) -> None:
        """Refuse data that make no epochs, or other ones in each process."""
        if isinstance(self._sampler, InfiniteSampler | MultiSourceSampler):
            raise ExplainedError(
                f'An epoch of {type(self._sampler).__name__} never ends: set '
                'train_dataloader.sampler.type=DefaultSampler, or '
                'train_cfg.type=IterBasedTrainLoop with max_iters.'
            )
        batches = all_gather_object(len(self.dataloader))
        if not all(batches):
            raise ExplainedError(
                f'{len(self.dataloader.dataset)} images make no whole batch in each of '
                f'{get_world_size()} processes: make train_dataloader.batch_size '
                'smaller, or set train_dataloader.drop_last=False.'
            )
        if len({*batches}) > 1:
            raise ExplainedError(
                f'An epoch has {batches} training batches in the processes of this '
                'run, which compute every step together: set train_dataloader.sampler.'
                'round_up=True, or take a sampler that gives all of them equally many.'
            )

    @property
    def _sampler(self) -> Sampler | None:
        return getattr(self._batches, 'sampler', None)

    @property
    def _is_resumable(self) -> bool:
        """Whether the loader can begin inside an epoch, with the same augmentation."""
        return isinstance(self._batches, RFDETRResumableBatchSampler)

    def run(self) -> nn.Module:
        """Train from the present position to the end."""
        if self.runner.val_loop is not None:
            check_counts(train_cfg__val_interval=min(self.dynamic_intervals))
        require_same_start(self.runner)
        # mmengine's own checkpoint hook cannot save this loop anywhere.
        can_save = self._hooks(RFDETRCheckpointHook)
        with self._interruption if can_save else nullcontext():
            self.runner.call_hook('before_train')
            if self.position.validation_due:
                self._validate()
            while self._epoch < self._max_epochs and not self.stop_training:
                self.run_epoch()
                if self.position.validation_due:
                    self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train the rest of the epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        if self._random_state is not None:
            restore_random_state(self._random_state)
            self._random_state = None
        for idx, data_batch in self._remaining_batches():
            self.run_iter(idx, data_batch)
        epoch = self._epoch + 1
        self.position = Position(epoch, validation_due=self._is_validated(epoch))
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _remaining_batches(self) -> Iterator[tuple[int, dict]]:
        """The batches of the epoch that are not done, with their numbers."""
        start = self.position.batches
        if not self._is_resumable:
            return islice(enumerate(self.dataloader), start, None)
        self._batches.epoch, self._batches.start = self._epoch, start
        # A loader draws a seed for its workers, once in a run or once in an epoch.
        with seeded((self._batches.seed,)):
            return enumerate(self.dataloader, start)

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Train with one batch, and end the run if that is asked for."""
        # A checkpoint that is written in this iteration contains it.
        self.position = Position(self._epoch, idx + 1)
        super().run_iter(idx, data_batch)
        wrapper = self.runner.optim_wrapper
        if wrapper.should_update() and self._interruption.is_asked_for():
            self._end()

    def _is_validated(self, epoch: int) -> bool:
        """Whether a validation follows when so many epochs are complete."""
        milestone = bisect.bisect(self.dynamic_milestones, epoch + 1)
        self.val_interval = self.dynamic_intervals[milestone - 1]
        return (
            self.runner.val_loop is not None
            and epoch >= self.val_begin
            and (epoch % self.val_interval == 0 or epoch == self._max_epochs)
        )

    def _validate(self) -> None:
        batches = all_gather_object(len(self.runner.val_loop.dataloader))
        self._common_val_batches = min(batches)
        # Training goes on with the random numbers from before the validation.
        self._random_state = self._random_state or capture_random_state()
        try:
            self.runner.val_loop.run()
        except InterruptedRunError:
            for hook in self._hooks(EMAHook):
                hook._swap_ema_parameters()
            self._end()
        self.position.validation_due = False

    def leave_validation_if_asked(self, batch: int) -> None:
        """Give up the present validation if the run is to end.

        Some processes may have more batches than others; all ask only after those
        that every process has.

        Args:
            batch: number of the batch that is done, from 0.

        Raises:
            InterruptedRunError: for this loop to catch.
        """
        if not self.position.validation_due or batch >= self._common_val_batches:
            return
        if self._interruption.is_asked_for():
            raise InterruptedRunError

    def _end(self) -> None:
        for hook in self._hooks(RFDETRCheckpointHook):
            path = hook.save_interrupted(self.runner)
            self.runner.logger.info(f'Interrupted: continue with --resume ({path}).')
        raise SystemExit(EXIT_INTERRUPTED)

    def _hooks(self, kind: type[Hook]) -> list:
        return [hook for hook in self.runner.hooks if isinstance(hook, kind)]

    def state_dict(self) -> dict:
        """What a checkpoint needs to go on from here; all processes take part."""
        rank = dict(
            random=self._random_state or capture_random_state(),
            seed=getattr(self._batches, 'seed', None),
            sampler_seed=getattr(self._sampler, 'seed', None),
        )
        return dict(
            position=asdict(self.position),
            ranks=all_gather_object(rank),
            batch_size=getattr(self._batches, 'batch_size', 1),
            epoch_length=len(self.dataloader),
            images=len(self.dataloader.dataset),
            stop_training=self.stop_training,
            early_stopping=[
                dict(wait_count=hook.wait_count, best_score=hook.best_score)
                for hook in self._hooks(EarlyStoppingHook)
            ],
        )

    def load_state_dict(self, state: dict) -> None:
        """Go on where a checkpoint was written.

        Args:
            state: from :meth:`state_dict`.

        Raises:
            ResumeError: the run would repeat or skip images, because it has another
                number of images in an iteration or in the data set.
        """
        self._check(state)
        self.position = Position(**state['position'])
        stopping = self._hooks(EarlyStoppingHook)
        self.stop_training = state['stop_training'] and bool(stopping)
        for hook, values in zip(stopping, state['early_stopping'], strict=False):
            vars(hook).update(values)
        ranks = state['ranks']
        same_ranks = len(ranks) == get_world_size()
        own = ranks[get_rank() if same_ranks else 0]
        if self._is_resumable:
            self._batches.seed = own['seed']
        if own['sampler_seed'] is not None:
            self._sampler.seed = own['sampler_seed']
        if same_ranks:
            self._random_state = own['random']
            restore_random_state(self._random_state)  # fails here, if it does
        else:
            self.runner.logger.warning(
                f'The checkpoint was written by {len(ranks)} '
                f'process{"es" * (len(ranks) > 1)}, and this run has '
                f'{get_world_size()}: it goes on with the right images in every '
                'batch, and with other random numbers.'
            )

    def _check(self, state: dict) -> None:
        """See that a run can go on where a checkpoint was written."""
        before = len(state['ranks']), state['batch_size']
        now = get_world_size(), getattr(self._batches, 'batch_size', 1)
        if before[0] * before[1] != now[0] * now[1]:
            raise ResumeError(
                f'The checkpoint was written by {before[0]} x {before[1]} images in an '
                'iteration (processes x train_dataloader.batch_size), and this run has '
                f'{now[0]} x {now[1]}: it would repeat or skip images. Make the '
                'products equal, or start a new run from the weights with load_from.'
            )
        # Of others than these it is not known which images a process gets.
        is_regular = type(self._sampler) is DefaultSampler and isinstance(
            getattr(self._batches, 'batches', self._batches), BatchSampler
        )
        same_images = before[0] == now[0] or is_regular
        before = state['images'], state['epoch_length'], before[0]
        now = len(self.dataloader.dataset), len(self.dataloader), now[0]
        if state['position']['batches'] and not (same_images and before[:2] == now[:2]):
            raise ResumeError(
                'The checkpoint stands inside an epoch of {} images in {} batches of '
                '{} processes, and an epoch of this run has {} in {} of {}: resume '
                'with the same data and as many processes (or with DefaultSampler and '
                'no batch_sampler), or from a checkpoint at the end of an '
                'epoch.'.format(*before, *now)
            )
