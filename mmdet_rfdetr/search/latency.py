"""What is timed of sub-nets, so that the latencies of others follow."""

import itertools
import random
from collections.abc import Callable, Hashable, Mapping
from functools import partial

import torch
from mmdet.structures import DetDataSample
from rfdetr_family.latency import Protocol
from torch import nn

from .space import SearchSpace, Subnet

TOGETHER = 8
"""Models that are held, and take turns, at a time."""
Job = Callable[[], object]


def timed(protocol: Protocol, jobs: dict[Hashable, Job]) -> dict[Hashable, dict]:
    """Time jobs on the device of a protocol; see there."""
    if protocol.device == 'cpu':
        return protocol.time(jobs)
    return protocol.time(jobs, partial(torch.cuda.synchronize, protocol.device))


def timed_models(
    protocol: Protocol,
    sizes: Mapping[Hashable, int],
    build: Callable[[Hashable], nn.Module],
    step: Callable[[int], None] = lambda count: None,
) -> dict[Hashable, dict]:
    """Time deployed models, some of them in turns at a time.

    Args:
        protocol: how.
        sizes: of the images, by any key.
        build: makes the model of a key.
        step: told how many more are done.
    """
    keys, found = random.Random(0).sample([*sizes], len(sizes)), {}
    for start in range(0, len(keys), TOGETHER):
        chosen = keys[start : start + TOGETHER]
        jobs = {key: pass_of(build(key), sizes[key]) for key in chosen}
        found |= timed(protocol, jobs)
        step(len(chosen))
    return found


def pass_of(model: nn.Module, image_size: int) -> Job:
    """A prediction of one image of that size by a model."""
    channels = model.backbone.patch_embed.in_channels
    images = torch.zeros(1, channels, image_size, image_size)
    images = images.to(model.query_embedding.device)
    shape = dict(img_shape=(image_size, image_size), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=shape)]
    return torch.no_grad()(lambda: model(images, samples, mode='predict'))


def measure_parts(
    space: SearchSpace,
    build: Callable[[Subnet], nn.Module],
    protocol: Protocol,
    step: Callable[[int], None] = lambda count: None,
) -> dict:
    """Measure what the latencies of all sub-nets follow from.

    That is one pass of the sub-net with all layers and queries for each size, patch and
    windows; and at the fewest, the middle and the most tokens, for each number of
    queries, sub-nets without layers, with one and with all. What a layer and the heads
    take are their differences: alone they would find other things in the caches.

    Args:
        space: of the sub-nets.
        build: makes the deployed model of a sub-net on the device.
        protocol: how.
        step: told how many more sizes, patches and windows are done.

    Returns:
        The ``parts`` of ``rfdetr_family.latency.predict``; trunks are named ``s-p-w``.
    """
    sizes = {each: each.image_size for each in map(space.with_all, space.triples)}
    whole = {
        '{}-{}-{}'.format(*each): dict(
            entry, num_layers=each.num_layers, num_queries=each.num_queries
        )
        for each, entry in timed_models(protocol, sizes, build, step).items()
    }
    by_tokens = sorted(sizes, key=lambda each: each.tokens)
    queries: dict[str, dict] = {}
    for most in (by_tokens[0], by_tokens[len(by_tokens) // 2], by_tokens[-1]):
        counts, jobs = space.queries(most[:3]), {}
        deepest = most.num_layers
        first = min(1, deepest)
        for key in itertools.product({0, first, deepest}, counts):
            model = build(Subnet(*most[:3], *key))
            jobs[key] = pass_of(model, most.image_size)
        times = {key: x['median'] for key, x in timed(protocol, jobs).items()}
        for count in counts:
            none, one, every = (times[depth, count] for depth in (0, first, deepest))
            layer = (every - one) / max(deepest - 1, 1)
            found = queries.setdefault(str(count), dict(layer=[], head=[], results=[]))
            found['layer'].append((most.tokens, layer))
            found['head'].append((most.tokens, one - none - layer))
            found['results'].append((most.tokens, none - times[0, counts[0]]))
    return dict(whole=whole, queries=queries)
