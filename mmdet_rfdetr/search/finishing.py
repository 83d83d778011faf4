"""The front of a search, measured from the models that it is exported as."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from rfdetr_family import front as files
from rfdetr_family import ranking
from rfdetr_family.latency import machine
from rfdetr_family.runs import earlier_checkpoint

from ..errors import BadDataError
from ..image_size import image_sizes
from ..shipped import config as shipped_config
from .export import export_subnet, subnet_config
from .latency import timed_models
from .running import Search
from .space import Subnet

SIZES = ('nano', 'small', 'medium', 'large')
"""Shipped sizes that are marked on the plot."""
COMPARED = 8
"""Sizes, patches and windows whose order in an earlier checkpoint is looked at."""

Artifact = tuple[Config, str]
"""The config of an ordinary model, and the file of its weights."""


class Holdout:
    """Images that the search has not seen, if there are some.

    Args:
        search: whose options name them; else they are those of ``test_dataloader``.

    Attributes:
        about: their ``name`` and number of ``images``, None if there are none.

    Raises:
        BadDataError: ``--holdout`` has images that the search evaluates on.
    """

    def __init__(self, search: Search) -> None:
        options, self._search, self.about = search.options, search, None
        self._named = options.holdout, options.holdout_images
        searched = search.measurement(search.space.triples[0]).digests()
        found = self._measurement(subnet_config(search.cfg, search.home))
        held_out = found.digests()
        shared = sorted(held_out[key] for key in held_out.keys() & searched.keys())
        if shared and options.holdout is not None:
            raise BadDataError(
                f'{len(shared)} of {len(held_out)} images of --holdout '
                f'{options.holdout} are among those of the search, as {shared[0]}: '
                'they cannot tell how good its choice is; give other images'
            )
        if shared:
            return
        name = options.holdout or 'test_dataloader'
        self.about = dict(name=name, images=found.images)

    def _measurement(self, cfg: Config) -> object:
        measure = self._search.measure
        if self._named[0] is None:
            return measure(cfg.test_dataloader, cfg.test_evaluator)
        return measure.of_annotations(cfg, *self._named)

    def test(self, artifact: Artifact) -> dict[str, float]:
        """What a model reaches on them, under the names of the files."""
        if self.about is None:
            return {}
        found = self._measurement(artifact[0]).run_model(self._search.load(*artifact))
        error = found['standard_error']
        return dict(holdout_mAP=found['bbox_mAP'], holdout_error=error)


def finish(
    search: Search, subnets: Sequence[Subnet], latencies: Mapping[Subnet, dict]
) -> None:
    """Write the files of a search whose sub-nets are evaluated.

    Args:
        search: which.
        subnets: those that were evaluated on all images.
        latencies: of all.

    Raises:
        BadDataError: ``--holdout`` has images that the search has seen.
    """
    options, known, holdout = search.options, search.results.read(), Holdout(search)
    for each, predicted in latencies.items():
        known[each.name]['latency_ms'] = predicted
    entries = {each.name: known[each.name] for each in subnets}
    chosen = ranking.front_of(
        [entry['latency_ms']['median'] for entry in entries.values()],
        [entry['bbox_mAP'] for entry in entries.values()],
    )
    front, artifacts = {}, {}
    for subnet in (subnets[index] for index in chosen):
        folder = search.folder / 'front' / subnet.name
        exported = export_subnet(search.cfg, search.options.checkpoint, subnet, folder)
        artifacts[subnet.name] = Config.fromfile(exported[0]), str(exported[1])
        front[subnet.name] = entry = entries[subnet.name]
        entry['predicted_ms'] = entry['latency_ms']['median']
    measured, baseline = dict(front), None
    if options.baseline is not None:
        cfg = subnet_config(search.cfg, search.home)
        artifacts['baseline'] = cfg, options.baseline
        alone = search.measure(cfg.val_dataloader, cfg.val_evaluator)
        found = alone.run_model(search.load(cfg, options.baseline))
        baseline = dict(name='baseline', **found, **search.size_of(search.home))
        measured['baseline'] = baseline
    sizes = {
        name: max(image_sizes(cfg.val_dataloader))
        for name, (cfg, _) in artifacts.items()
    }
    times = timed_models(
        search.protocol,
        sizes,
        lambda name: search.load(*artifacts[name]).switch_to_deploy(),
    )
    for name, entry in measured.items():
        entry |= dict(latency_ms=times[name], **holdout.test(artifacts[name]))
    search.results.replace(known.values())
    marked = {size: shipped_subnet(size).name for size in SIZES}
    accelerator = ''
    if search.options.device != 'cpu':
        accelerator = torch.cuda.get_device_name(search.options.device)
    found = dict(
        front=list(front.values()),
        baseline=baseline,
        shipped={size: entries[x] for size, x in marked.items() if x in entries},
        budget=options.budget_ms,
        holdout=holdout.about,
        order=order_of(search, [subnets[index] for index in chosen], entries),
        images=next(iter(front.values()))['images'],
        evaluated=len(entries),
        subnets=len(known),
        subset=f', all of them on {options.images}' if options.images else '',
        checkpoint=search.options.checkpoint,
        protocol=search.protocol.describe(),
        machine=machine(accelerator),
    )
    files.write_front(search.folder, found, entries)


def order_of(
    search: Search, front: Iterable[Subnet], entries: Mapping[str, dict]
) -> str:
    """What an earlier checkpoint of the run says of the order of the sub-nets."""
    earlier = search.options.earlier or earlier_checkpoint(search.options.checkpoint)
    if earlier is None:
        return files.order_warning(None, None)
    groups: dict[tuple, set[Subnet]] = {}
    for each in front:
        groups.setdefault(each[:3], set()).add(each)
    triples = search.space.triples
    for triple in triples[:: max(1, len(triples) // COMPARED)]:
        each = search.space.with_all(triple)
        if each.name in entries:
            groups.setdefault(triple, set()).add(each)
    model, before = search.load(search.cfg, earlier), {}
    for group in groups.values():
        for entry in search.evaluate(model, sorted(group)):
            before[entry['name']] = entry['bbox_mAP']
    now = [entries[name]['bbox_mAP'] for name in before]
    tau = ranking.kendall_tau(list(before.values()), now)
    names = Path(earlier).name, Path(search.options.checkpoint).name
    return files.order_warning(tau, names)


def shipped_subnet(size: str) -> Subnet:
    """The sub-net that is a shipped size, as its config says."""
    cfg = Config.fromfile(shipped_config(f'rfdetr_{size}_coco.py'))
    model = cfg.model
    windows = model.backbone.patch_size, model.backbone.num_windows
    return Subnet(cfg.image_size, *windows, model.decoder.num_layers, model.num_queries)
