"""Validation of several sub-nets, each as the model that it is exported as."""

import copy
from collections.abc import Sequence

from mmdet.registry import LOOPS
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, ValLoop
from torch import nn
from torch.utils.data import DataLoader

from ..errors import SettingError
from ..image_size import image_sizes, set_image_size
from ..ops.unwrapped import unwrap_model
from .space import Subnet
from .supernet import by_operations, set_subnet

NAMES = ('largest', 'middle', 'smallest')


class SubnetEvaluator(Evaluator):
    """An evaluator whose metrics get the name of a sub-net."""


@LOOPS.register_module()
class RFDETRSubnetValLoop(ValLoop):
    """Validate sub-nets, one after the other, each with images of its own size.

    The metrics of a sub-net are what ``tools/test.py`` gives for its export, with its
    name before them: ``largest/coco/bbox_mAP``. The means over the sub-nets are
    ``search/bbox_mAP`` and so on.

    Args:
        runner: the runner; its model has a search space.
        dataloader: config of the data loader, for any image size.
        evaluator: see mmengine.
        fp16: see mmengine.
        val_subnets: ``'largest'``, ``'middle'`` and ``'smallest'`` by operations among
            those that are drawn, or names such as ``s480-p12-w2-d3-q200``.

    Raises:
        SettingError: no name is given, one is unknown, or the pipeline says nowhere
            what size its images get.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        val_subnets: Sequence[str] = NAMES,
    ) -> None:
        model = unwrap_model(runner.model)
        self.subnets = {name: choose(model, name) for name in val_subnets}
        if not self.subnets or isinstance(val_subnets, str):
            raise SettingError(
                f'val_cfg.val_subnets={val_subnets!r}: give a list of {NAMES} or names '
                'as s480-p12-w2-d3-q200'
            )
        if not isinstance(dataloader, dict) or not image_sizes(dataloader):
            raise SettingError(
                'val_cfg.type=RFDETRSubnetValLoop gives each sub-net images of its own '
                'size, and no step of val_dataloader.dataset.pipeline has a key '
                "image_size: resize by dict(type='RFDETRResize', image_size=...)"
            )
        first, *others = (
            loader_for(dataloader, subnet) for subnet in self.subnets.values()
        )
        super().__init__(runner, first, evaluator, fp16)
        self.evaluator = SubnetEvaluator(self.evaluator.metrics)
        self.evaluator.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        built = (runner.build_dataloader(x, seed=runner.seed) for x in others)
        self.loaders = [self.dataloader, *built]

    def run(self) -> dict:
        """Validate all of them."""
        runner = self.runner
        model = unwrap_model(runner.model)
        first = next(iter(self.subnets.values()))
        set_subnet(model, first)
        runner.call_hook('before_val')
        runner.call_hook('before_val_epoch')
        runner.model.eval()
        metrics = {}
        for (name, subnet), loader in zip(
            self.subnets.items(), self.loaders, strict=True
        ):
            runner.logger.info(f'Validation of {name}: {subnet.name}')
            set_subnet(model, subnet)
            for index, batch in enumerate(loader):
                self.run_iter(index, batch)
            found = self.evaluator.evaluate(len(loader.dataset))
            metrics.update({f'{name}/{key}': value for key, value in found.items()})
        metrics.update(_means(metrics, len(self.subnets)))
        # Other hooks may evaluate once more, with the loader of this loop.
        set_subnet(model, first)
        runner.call_hook('after_val_epoch', metrics=metrics)
        runner.call_hook('after_val')
        return metrics


def choose(model: nn.Module, name: str) -> Subnet:
    """The sub-net of a name in ``val_subnets``.

    Raises:
        SettingError: if it is none.
    """
    if name not in NAMES:
        return Subnet.parse(name)
    ordered = by_operations(model)[::-1]
    return ordered[NAMES.index(name) * (len(ordered) - 1) // (len(NAMES) - 1)]


def loader_for(dataloader: dict, subnet: Subnet) -> dict:
    """The config of a data loader, with images of the size of a sub-net."""
    backbone = dict(patch_size=subnet.patch_size, num_windows=subnet.num_windows)
    cfg = dict(model=dict(backbone=backbone), loader=copy.deepcopy(dict(dataloader)))
    set_image_size(cfg, subnet.image_size)
    return cfg['loader']


def _means(metrics: dict, count: int) -> dict[str, float]:
    """Means over the sub-nets, as ``search/bbox_mAP``."""
    sums: dict[str, float] = {}
    for key, value in metrics.items():
        name = f'search/{key.rpartition("/")[2]}'
        sums[name] = sums.get(name, 0.0) + value
    return {name: value / count for name, value in sums.items()}
