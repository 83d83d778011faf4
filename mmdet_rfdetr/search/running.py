"""A whole search: latencies, all sub-nets, and then their front."""

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from rfdetr_family import latency, ranking
from rfdetr_family.processes import in_processes
from rfdetr_family.results import Results, other_than, write_whole
from rfdetr_predict.progress import Progress
from torch import nn

from ..errors import ExplainedError, ResumeError, SettingError
from .export import subnet_config
from .latency import gather_parts, parts_of, timed_models
from .operations import Operations
from .shared import check_searchable, detect
from .space import Subnet
from .supernet import home_subnet
from .validation import loader_for

SWITCHES = 'compile', 'cuda_graphs'
Group = Sequence[Subnet]
"""Sub-nets of one size, patch and windows."""


class Search:
    """The search of a super-net.

    Args:
        cfg: whole config with ``model.search_space``.
        options: of ``tools/search.py``.
        measurement: class of what measures accuracy on a loader with a metric.

    Raises:
        SettingError: settings do not fit, or cannot be searched.
    """

    def __init__(
        self, cfg: Config, options: argparse.Namespace, measurement: type
    ) -> None:
        self.cfg, self.options, self.measure = cfg, options, measurement
        keys = 'device', 'clock', 'threads', 'pause', 'rounds'
        self.protocol = latency.Protocol(*(getattr(options, key) for key in keys))
        if problem := self.protocol.problem():
            raise SettingError(problem)
        model = self.load(cfg, None, 'cpu')
        check_searchable(model)
        self.space, self.home = model.search_space, home_subnet(model)
        self.operations, self.folder = Operations(model), Path(options.work_dir)
        self.results = Results(self.folder)

    def load(
        self, cfg: Config, checkpoint: str | None, device: str | None = None
    ) -> nn.Module:
        """The model of a config on a device, by default that of the search.

        Args:
            cfg: switches for speed are left out of its model.
            checkpoint: file of its weights, None for random ones.
            device: where it computes.
        """
        torch.set_num_threads(self.options.threads)
        # There may be thousands of models, of which each has its lines.
        MMLogger.get_current_instance().setLevel('WARNING')
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        model = MODELS.build({k: x for k, x in cfg.model.items() if k not in SWITCHES})
        if checkpoint is not None:
            load_checkpoint(model, checkpoint, 'cpu', logger='current')
        return model.to(device or self.options.device).eval().requires_grad_(False)

    def run(self) -> tuple[list[Subnet], dict[Subnet, dict]]:
        """Evaluate what is left of it.

        Returns:
            The sub-nets that were evaluated on all images; and latencies of all.

        Raises:
            ResumeError: the folder holds the search of something else.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        about = dict(
            checkpoint=hashlib.sha256(
                Path(self.options.checkpoint).read_bytes()
            ).hexdigest(),
            model=self.cfg.model.to_dict(),
            data=self.cfg.val_dataloader.dataset.to_dict(),
        )
        if key := other_than(self.folder / 'search.json', about):
            raise ResumeError(
                f'{self.folder} holds the search of another {key}: choose another '
                '--work-dir, or remove this one'
            )
        latencies = self._latencies()
        subnets = list(latencies)
        if self.options.images is not None:
            self._evaluate(subnets, self.options.images)
            subnets = self._still_possible(latencies)
        self._evaluate(subnets, None)
        return subnets, latencies

    def _latencies(self) -> dict[Subnet, dict]:
        """Those that follow from parts, which were or are measured by the protocol."""
        path, about = self.folder / 'latency.json', self.protocol._asdict()
        saved = json.loads(path.read_text()) if path.exists() else {}
        if saved.get('protocol') != about:
            timed = {each: each.image_size for each in parts_of(self.space)}
            step = Progress(len(timed), what='latencies').step
            times = timed_models(self.protocol, timed, self.deployed, step)
            saved = dict(protocol=about, parts=gather_parts(times))
            write_whole(path, json.dumps(saved, indent=1))
        return {
            each: latency.predict(
                saved['parts'], '{}-{}-{}'.format(*each), each.tokens, *each[3:]
            )
            for each in self.space.subnets()
        }

    def deployed(self, subnet: Subnet) -> nn.Module:
        """The deployed model of a sub-net, with random weights."""
        return self.load(subnet_config(self.cfg, subnet), None).switch_to_deploy()

    def _still_possible(self, latencies: dict[Subnet, dict]) -> list[Subnet]:
        """Which sub-nets could be on the front of all images."""
        subnets, known = list(latencies), self.results.read()
        columns = (
            [known[each.name][key] for each in subnets]
            for key in ('bbox_mAP', 'replicates')
        )
        times = [entry['median'] for entry in latencies.values()]
        return [subnets[index] for index in ranking.may_be_best(times, *columns)]

    def _evaluate(self, subnets: Sequence[Subnet], images: int | None) -> None:
        """Evaluate those that are not in the file yet, by one process or several.

        Raises:
            ExplainedError: one of several processes failed.
        """
        least = self.measurement(self.space.triples[0], images).images
        known, groups = self.results.read(), {}
        for each in subnets:
            if known.get(each.name, {}).get('images', 0) < least:
                groups.setdefault(each[:3], []).append(each)
        work = sorted(groups.values(), key=self.operations.shared, reverse=True)
        count = min(self.options.processes, len(work))
        total = math.ceil(sum(map(self.operations.shared, work)) * least / 1e9)
        progress, done = Progress(total, what='G operations'), []

        def step(operations: float) -> None:
            done.append(operations / 1e9)
            progress.reach(min(total, round(sum(done))))

        if count == 1:
            self.evaluate_share(work, images, 0, step)
        elif count:
            shares = [(work[rank::count], images, rank) for rank in range(count)]
            if codes := in_processes(self.evaluate_share, shares, step):
                raise ExplainedError(
                    f'A process of the search ended with the code {codes[0]}: its '
                    'output says why; start the same command again, which goes on.'
                )
        progress.close()

    def evaluate_share(
        self,
        work: Sequence[Group],
        images: int | None,
        rank: int,
        step: Callable[[float], None],
    ) -> None:
        """Evaluate sub-nets, those of one trunk together, and write their lines.

        Args:
            work: the sub-nets.
            images: how many, None for all.
            rank: of the process.
            step: told of operations that are done.
        """
        device = self.options.device
        if device == 'cuda':
            device = f'cuda:{rank % torch.cuda.device_count()}'
        model = self.load(self.cfg, self.options.checkpoint, device)
        for group in work:
            cost = self.operations.shared(group)
            lines = self.evaluate(
                model, group, images, lambda n, cost=cost: step(n * cost)
            )
            self.results.add(lines)

    def evaluate(
        self,
        model: nn.Module,
        group: Group,
        images: int | None = None,
        step: Callable[[int], None] = lambda images: None,
    ) -> list[dict]:
        """What ``subnets.jsonl`` says of some sub-nets, but for their latency.

        Args:
            model: the super-net.
            group: the sub-nets.
            images: how many, None for all.
            step: told how many more images were seen.
        """
        measurement = self.measurement(group[0], images)
        found = measurement.run(group, lambda batch: detect(model, batch, group), step)
        return [
            dict(name=each.name, **each._asdict(), **entry, **self.size_of(each))
            for each, entry in found.items()
        ]

    def size_of(self, subnet: Subnet) -> dict[str, float]:
        """Operations and parameters of a sub-net, under the names of the files."""
        gflops = self.operations.of(subnet) / 1e9
        return dict(gflops=gflops, params=self.operations.parameters(subnet))

    def measurement(self, knobs: Sequence[int], images: int | None = None) -> object:
        """The validation data for a size, patch and windows."""
        loader = loader_for(self.cfg.val_dataloader, self.space.with_all(knobs[:3]))
        return self.measure(loader, self.cfg.val_evaluator, images)
