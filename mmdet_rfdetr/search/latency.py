"""What is timed of sub-nets: whole models, and their parts behind the trunk."""

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

import torch
from mmdet.structures import DetDataSample
from rfdetr_family.latency import Protocol
from torch import nn

from ..matching import Stages
from ..models.decoder import sine_embedding
from ..models.memory import Memory
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
    images, samples = _input(model, image_size)
    return torch.no_grad()(lambda: model(images, samples, mode='predict'))


def _input(model: nn.Module, image_size: int) -> tuple[torch.Tensor, list]:
    channels = model.backbone.patch_embed.in_channels
    images = torch.zeros(1, channels, image_size, image_size)
    shape = dict(img_shape=(image_size, image_size), scale_factor=(1.0, 1.0))
    return images.to(model.query_embedding.device), [DetDataSample(metainfo=shape)]


def measure_parts(
    space: SearchSpace,
    build: Callable[[Subnet], nn.Module],
    protocol: Protocol,
    step: Callable[[int], None] = lambda count: None,
) -> dict:
    """Measure what the latencies of all sub-nets follow from.

    That is one pass of the sub-net with all layers and queries for each size, patch and
    windows; and at the fewest, the middle and the most tokens what runs behind the
    trunk, for each number of queries.

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
    jobs = {}
    for subnet in (by_tokens[0], by_tokens[len(by_tokens) // 2], by_tokens[-1]):
        model = build(subnet)
        parts = _part_jobs(model, subnet, space.num_queries)
        jobs |= {(*key, subnet.tokens): job for key, job in parts.items()}
    queries: dict[str, dict] = {}
    with torch.no_grad(), model.step_context():
        times = timed(protocol, jobs)
    for (kind, count, tokens), entry in times.items():
        found = queries.setdefault(str(count), dict(layer=[], head=[], results=[]))
        found[kind].append((tokens, entry['median']))
    for found in queries.values():
        found['layer'] = found['layer'] or [(0, 0.0)]
        for kind in ('head', 'results'):
            each = [time for _, time in found[kind]]
            found[kind] = sum(each) / max(len(each), 1)
    return dict(whole=whole, queries=queries)


def _part_jobs(
    model: nn.Module, subnet: Subnet, num_queries: Sequence[int]
) -> dict[tuple[str, int], Job]:
    """What runs behind the trunk of a deployed model, for each number of queries.

    Returns:
        By kind and queries: a layer, positions with the box head, and what every
        sub-net does with its queries.
    """
    images, samples = _input(model, subnet.image_size)
    device, decoder = images.device, model.decoder
    generator, jobs = torch.Generator().manual_seed(0), {}
    with torch.no_grad():
        memory = Memory.flatten(model.extract_feat(images))

    for count in sorted({min(count, subnet.num_queries) for count in num_queries}):
        state = torch.randn(1, count, decoder.embed_dims, generator=generator)
        boxes = 0.2 + 0.6 * torch.rand(1, count, 4, generator=generator)
        state, boxes = state.to(device), boxes.to(device)
        points = memory.relative_to_levels(boxes)

        def head(state=state, boxes=boxes, points=points) -> Sequence[torch.Tensor]:
            position = sine_embedding(points[:, :, 0], decoder.embed_dims)
            decoder.ref_point_head(position)
            return model.bbox_head(decoder.norm(state)[None], boxes)

        with torch.no_grad(), model.step_context():
            stages = Stages(*map(tuple, head()))

        def results(state=state, stages=stages) -> object:
            model.query_selection.fc_reg(state)
            return model.bbox_head.predict(stages, samples)

        jobs['results', count] = results
        if subnet.num_layers:
            inputs = dict(memory=memory, reference_points=points)
            layer = partial(decoder.layers[-1], state, state, 1, **inputs)
            jobs |= {('layer', count): layer, ('head', count): head}
    return jobs
