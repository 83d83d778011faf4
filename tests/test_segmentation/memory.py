"""Peak memory of a training step of Seg Nano, here and in the official package.

``python -m tests.test_segmentation.memory`` measures both, each in a process of its
own and with its own optimizer step, and prints the ratio. Where the two packages
cannot live together, ``RFDETR_OFFICIAL_PYTHON`` names the official one's Python.
"""

import json
import resource
import sys

import torch

from tests import golden_rule

SIDE = 312
BATCH = 2
STEPS = 2
"""The second step has the state of the optimizer from the beginning."""


def used():
    """The most memory that this process ever had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def batches(objects):
    """Images and objects with masks of each step."""
    for seed in range(STEPS):
        images, _ = golden_rule.images([(SIDE, SIDE)] * BATCH, (SIDE, SIDE), seed)
        yield (
            torch.from_numpy(images),
            golden_rule.objects([objects] * BATCH, 91, seed, (SIDE, SIDE)),
        )


def official_loss():
    """The official Seg Nano and the loss of a batch."""
    from rfdetr.utilities.tensors import NestedTensor

    from tests import official

    model, criterion, _ = official.construct(dict(config_class='RFDETRSegNanoConfig'))
    model.train()
    criterion.train()

    def loss(images, objects):
        mask = torch.zeros(BATCH, SIDE, SIDE, dtype=torch.bool)
        targets = [
            {name: torch.from_numpy(value) for name, value in image.items()}
            for image in objects
        ]
        terms = criterion(model(NestedTensor(images, mask)), targets)
        return sum(w * terms[name] for name, w in criterion.weight_dict.items())

    return model, loss


def our_loss():
    """The shipped Seg Nano with official classes, and the loss of a batch."""
    import mmdet_rfdetr  # isort: skip
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from tests import parity

    init_default_scope('mmdet')
    config = Config.fromfile(mmdet_rfdetr.config('rfdetr-seg_nano_coco.py')).model
    config.precision = None
    config.bbox_head.num_classes = 91
    model = MODELS.build(config).train()

    def loss(images, objects):
        size = (SIDE, SIDE)
        samples = parity.make_samples([size] * BATCH, size, objects)
        return sum(model(images, samples, 'loss').values())

    return model, loss


def measure(side, objects):
    """Train for some steps.

    Args:
        side: ``'ours'`` or ``'official'``.
        objects: number of objects in each image.

    Returns:
        Memory in MiB before the first step, model included, and at the peak.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, loss = our_loss() if side == 'ours' else official_loss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    before = used()
    for images, image_objects in batches(objects):
        optimizer.zero_grad()
        loss(images, image_objects).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    return dict(before=before, peak=used())


def measure_in_child(side, objects):
    """Call :func:`measure` in a process of its own."""
    import mmdet_rfdetr  # noqa: F401  (before mmdet, which the next line imports)
    from tests import live
    from tests.interpreter import run

    python = sys.executable if side == 'ours' else live.PYTHON
    command = [python, '-W', 'ignore', '-m', __spec__.name, side, objects]
    result = run(command)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def main():
    for objects in (1, 7, 30):
        ours, official = (
            measure_in_child(side, objects) for side in ('ours', 'official')
        )
        print(
            f'{objects:2} objects an image: peak {ours["peak"]:.0f} MiB here, '
            f'{official["peak"]:.0f} MiB official, '
            f'ratio {ours["peak"] / official["peak"]:.2f}; '
            f'before the first step {ours["before"]:.0f} and '
            f'{official["before"]:.0f} MiB',
            flush=True,
        )


if __name__ == '__main__':
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
