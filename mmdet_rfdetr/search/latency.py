"""What is timed of sub-nets, so that the latencies of others follow."""

import itertools
from collections.abc import Callable, Hashable, Mapping
from functools import partial

import torch
from mmdet.structures import DetDataSample
from rfdetr_family.latency import Protocol
from torch import nn

from .space import SearchSpace, Subnet

HELD = 2 * 10**9
"""Bytes of weights of models that take turns at a time, about."""


def timed_models(
    protocol: Protocol,
    sizes: Mapping[Hashable, int],
    build: Callable[[Hashable], nn.Module],
    step: Callable[[int], None] = lambda count: None,
) -> dict[Hashable, dict]:
    """Time deployed models, as many in turns at a time as may be held.

    Args:
        protocol: how.
        sizes: of the images, by any key; neighbours take turns together.
        build: makes the model of a key.
        step: told how many more are done.
    """
    wait = {}
    if protocol.device != 'cpu':
        wait = dict(wait=partial(torch.cuda.synchronize, protocol.device))
    jobs, held, found = {}, 0, {}
    for key, size in sizes.items():
        model = build(key)
        weights = itertools.chain(model.parameters(), model.buffers())
        held += 4 * sum(x.numel() for x in weights)
        jobs[key] = pass_of(model, size)
        if held > HELD or key == list(sizes)[-1]:
            found |= protocol.time(jobs, **wait)
            step(len(jobs))
            jobs, held = {}, 0
    return found


def pass_of(model: nn.Module, image_size: int) -> Callable[[], object]:
    """A prediction of one image of that size by a model."""
    channels = model.backbone.patch_embed.in_channels
    images = torch.zeros(1, channels, image_size, image_size)
    images = images.to(model.query_embedding.device)
    shape = dict(img_shape=(image_size, image_size), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=shape)]
    return torch.no_grad()(lambda: model(images, samples, mode='predict'))


def parts_of(space: SearchSpace) -> list[Subnet]:
    """The sub-nets that are timed, so that the latencies of all others follow.

    At the fewest, the middle and the most tokens they are, for each number of queries,
    those without layers, with one and with all; and for each other size, patch and
    windows the one with all layers and queries.
    """
    largest = sorted(map(space.with_all, space.triples), key=lambda each: each.tokens)
    subnets = []
    for most in (largest[0], largest[len(largest) // 2], largest[-1]):
        depths = {0, min(1, most.num_layers), most.num_layers}
        for key in itertools.product(sorted(depths), space.queries(most[:3])):
            subnets.append(Subnet(*most[:3], *key))
    return list(dict.fromkeys(subnets + largest))


def gather_parts(times: Mapping[Subnet, dict]) -> dict:
    """Take what layers and heads take from differences of whole models.

    Alone they would find other things in the caches.

    Args:
        times: of each of :func:`parts_of`.

    Returns:
        The ``parts`` of ``rfdetr_family.latency.predict``; trunks are named ``s-p-w``.
    """
    groups: dict[tuple, dict[tuple, float]] = {}
    for subnet, entry in times.items():
        groups.setdefault(subnet[:3], {})[subnet[3:]] = entry['median']
    whole, queries = {}, {}
    for triple, of_group in groups.items():
        deepest, most = max(of_group)
        entry = times[Subnet(*triple, deepest, most)]
        counts = dict(num_layers=deepest, num_queries=most)
        whole['{}-{}-{}'.format(*triple)] = entry | counts
        tokens, first = (triple[0] // triple[1]) ** 2, min(1, deepest)
        fewest = min(count for _, count in of_group)
        for count in {count for depth, count in of_group if depth == 0}:
            none, one, every = (of_group[x, count] for x in (0, first, deepest))
            layer = (every - one) / max(deepest - 1, 1)
            found = queries.setdefault(str(count), dict(layer=[], head=[], results=[]))
            found['layer'].append((tokens, layer))
            found['head'].append((tokens, one - none - layer))
            found['results'].append((tokens, none - of_group[0, fewest]))
    return dict(whole=whole, queries=queries)
