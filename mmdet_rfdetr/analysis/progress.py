"""A bar on a terminal, besides the lines of the log."""

import sys

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class RFDETRProgressHook(Hook):
    """Show how far training, validation or test are within the data, and when they end.

    The bar stands on standard error where that is a terminal, and nowhere else: the log
    has mmengine's lines, with the time that the whole run needs. The bar goes
    before such a line, and comes again with one of the next batches.
    """

    priority = 'VERY_LOW'  # after the lines of the log

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        from rfdetr_predict.progress import Progress

        batches = len(getattr(runner, f'{mode}_loop').dataloader)
        quiet = not sys.stderr.isatty() or not is_main_process()
        what = f'batches ({mode})'
        setattr(self, mode, Progress(batches, quiet, what, runner.logger))

    def _after_iter(self, runner: Runner, *args, mode: str = 'train', **kwargs) -> None:
        getattr(self, mode).step()
        if getattr(self, mode).is_done:  # a loop by iterations begins anew
            self._before_epoch(runner, mode)
