"""Predicted latencies of sub-nets of the demo beside their own, timed in turns.

``python -m tests.test_search.latency [--rounds 20]``: ten sub-nets that are no parts of
the prediction, random weights, one thread, the clock of the process. It prints each of
them and the median of how far the predictions are off, which docs/search.md has.
"""

import argparse
import random

import numpy as np
from mmengine.config import Config
from rfdetr_family.latency import predict

import mmdet_rfdetr
from mmdet_rfdetr.runtime.measuring import Measurement
from mmdet_rfdetr.search.latency import gather_parts, parts_of, timed_models
from mmdet_rfdetr.search.running import Search

COUNT = 10


def main():
    """Time parts and sub-nets in the same turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=20)
    rounds = parser.parse_args().rounds
    cfg = Config.fromfile(mmdet_rfdetr.config('rfdetr_search_demo.py'))
    options = argparse.Namespace(
        device='cpu',
        clock='cpu',
        threads=1,
        pause=0.0,
        rounds=rounds,
        work_dir='.',
        checkpoint='',
        processes=1,
        images=None,
    )
    search = Search(cfg, options, Measurement)
    parts = parts_of(search.space)
    others = [subnet for subnet in search.space.subnets() if subnet not in parts]
    chosen = random.Random(1).sample(others, COUNT)
    sizes = {subnet: subnet.image_size for subnet in (*parts, *chosen)}
    timed = timed_models(search.protocol, sizes, search.deployed)
    known = gather_parts({subnet: timed[subnet] for subnet in parts})
    errors = []
    for subnet in chosen:
        trunk = '{}-{}-{}'.format(*subnet)
        predicted = predict(known, trunk, subnet.tokens, *subnet[3:])['median']
        direct = timed[subnet]['median']
        errors.append(abs(predicted / direct - 1))
        print(f'{subnet.name}: {predicted:.2f} of {direct:.2f} ms')
    print(f'off by {np.median(errors):.1%} (median), {max(errors):.1%} (most)')


if __name__ == '__main__':
    main()
