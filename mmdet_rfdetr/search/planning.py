"""What a search will take, before anything of it is done."""

import time

import numpy as np
from rfdetr_family.plan import Plan

from .export import subnet_config
from .latency import parts_of, pass_of
from .running import Search


def plan(search: Search) -> Plan:
    """Find it out; passes of the smallest sub-net tell the speed.

    Args:
        search: which.
    """
    space, operations, protocol = search.space, search.operations, search.protocol
    subnets, largest = [*space.subnets()], [*map(space.with_all, space.triples)]
    costs = [operations.of(each) for each in largest]
    smallest = largest[int(np.argmin(costs))]
    model = search.load(subnet_config(search.cfg, smallest), None)
    run = pass_of(model, smallest.image_size)
    run()
    start = time.perf_counter()
    run()
    run()
    rate = 2 * min(costs) / (time.perf_counter() - start)
    measurement = search.measurement(largest[0])
    images = min(search.options.images or measurement.images, measurement.images)
    groups = [[x for x in subnets if x[:3] == each[:3]] for each in largest]
    widest = max(largest, key=lambda each: each.tokens)
    detections = model.bbox_head.test_cfg['max_per_img']
    timed, passes = parts_of(space), protocol.warm_up + protocol.rounds
    return Plan(
        subnets=len(subnets),
        tokens=sorted(each.tokens for each in largest),
        shared=sum(map(operations.shared, groups)),
        separate=sum(map(operations.of, subnets)),
        rate=rate,
        device_bytes=operations.memory(widest, measurement.loader.batch_size),
        # Four coordinates, a score and a label.
        host_bytes=max(map(len, groups)) * images * detections * 28,
        images=images,
        all_images=measurement.images,
        processes=search.options.processes,
        latencies=passes * (sum(map(operations.of, timed)) / rate)
        + protocol.rounds * len(timed) * protocol.pause,
    )
