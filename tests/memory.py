"""Peak memory of a training step, here and in the official package.

``python -m tests.memory`` measures both, each in a process of its own and with its own
optimizer step. Where the two packages cannot live together, ``RFDETR_OFFICIAL_PYTHON``
names the official one's Python.
"""

import argparse
import json
import resource
import sys

import torch
from torch.profiler import ProfilerActivity, profile

from tests import golden_rule

# Official configuration class, our config and the side of the images.
VARIANTS = {
    'nano': ('RFDETRNanoConfig', 'rfdetr_nano_coco.py', 384),
    'seg_nano': ('RFDETRSegNanoConfig', 'rfdetr-seg_nano_coco.py', 312),
    'pose': ('RFDETRKeypointPreviewConfig', 'rfdetr-pose_preview_coco.py', 576),
}
DTYPES = ('float32', 'bfloat16')
BATCH = 2
MIB = 2**20


def batch(variant, objects, seed):
    """Images and their objects, with masks or points where the model learns them."""
    size = (VARIANTS[variant][2],) * 2
    mask_size = size if variant.startswith('seg') else None
    images, _ = golden_rule.images([size] * BATCH, size, seed)
    is_pose = variant == 'pose'
    classes = 1 if is_pose else 91
    made = golden_rule.objects([objects] * BATCH, classes, seed, mask_size)
    if is_pose:
        made = golden_rule.with_keypoints(made, [17], seed)
    return torch.from_numpy(images), made


def official_loss(variant, dtype):
    """The official model and the loss of a batch, under autocast for bfloat16."""
    from rfdetr.utilities.tensors import NestedTensor

    from tests import official

    config_class, _, _ = VARIANTS[variant]
    model, criterion, _ = official.construct(dict(config_class=config_class))
    model.train()
    criterion.train()

    def loss(images, objects):
        mask = torch.zeros(BATCH, *images.shape[2:], dtype=torch.bool)
        targets = [
            {name: torch.from_numpy(value) for name, value in image.items()}
            for image in objects
        ]
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
            terms = criterion(model(NestedTensor(images, mask)), targets)
        return sum(w * terms[name] for name, w in criterion.weight_dict.items())

    return model, loss


def our_loss(variant, dtype):
    """The shipped model with official classes, and the loss of a batch."""
    import mmdet_rfdetr  # isort: skip
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from tests import parity

    init_default_scope('mmdet')
    _, path, _ = VARIANTS[variant]
    config = Config.fromfile(mmdet_rfdetr.config(path)).model
    config.precision = dict(device_type='cpu', dtype=dtype)
    config.bbox_head.num_classes = 2 if variant == 'pose' else 91
    model = MODELS.build(config).train()

    def loss(images, objects):
        size = tuple(images.shape[2:])
        samples = parity.make_samples([size] * BATCH, size, objects)
        terms = model(images, samples, 'loss')
        return sum(value for name, value in terms.items() if 'loss' in name)

    return model, loss


def peak_of_tensors(work):
    """The most memory of tensors that ``work()`` needs beside what was there, MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in events
        if event.name() == '[memory]'
    ]
    now = peak = 0
    for _, change in sorted(changes, key=lambda one: one[0]):
        now += change
        peak = max(peak, now)
    return peak / MIB


def measure(side, variant, objects, dtype='float32'):
    """Train for two steps.

    Args:
        side: ``'ours'`` or ``'official'``.
        variant: one of ``VARIANTS``.
        objects: number of objects in each image.
        dtype: one of ``DTYPES``, of the products.

    Returns:
        Dict of MiB. ``step``: tensors at the peak of the second step, beside the
        weights and the state of the optimizer; ``process``: the most that the process
        ever had, with Python packages and what the allocator did not give back.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, loss = (our_loss if side == 'ours' else official_loss)(variant, dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(seed):
        optimizer.zero_grad()
        loss(*batch(variant, objects, seed)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    step(0)
    peak = peak_of_tensors(lambda: step(1))
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    return dict(step=peak, process=process)


def measure_in_child(side, variant, objects, dtype='float32'):
    """Call :func:`measure` in a process of its own."""
    import mmdet_rfdetr  # noqa: F401  (before mmdet, which the next line imports)
    from tests import live
    from tests.interpreter import run

    python = sys.executable if side == 'ours' else live.PYTHON
    command = [python, '-W', 'ignore', '-m', __spec__.name]
    options = dict(side=side, variant=variant, objects=objects, dtype=dtype)
    for name, value in options.items():
        command += [f'--{name}', value]
    result = run(command)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def compare(dtype):
    """Print a table of both sides."""
    print('| model, objects an image | tensors of a step | process |')
    print('|---|---|---|')
    for variant in VARIANTS:
        for objects in (1, 7, 30):
            ours, official = (
                measure_in_child(side, variant, objects, dtype)
                for side in ('ours', 'official')
            )
            cells = (
                f'{ours[name]:.0f} MiB, official {official[name]:.0f} '
                f'({ours[name] / official[name]:.2f})'
                for name in ours
            )
            print('|', ' | '.join((f'{variant}, {objects}', *cells)), '|', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--side', choices=('ours', 'official'), help='only this side')
    parser.add_argument('--variant', choices=VARIANTS, default='nano')
    parser.add_argument('--objects', type=int, default=7)
    parser.add_argument('--dtype', choices=DTYPES, default='float32')
    args = parser.parse_args()
    if args.side is None:
        compare(args.dtype)
    else:
        print(json.dumps(measure(args.side, args.variant, args.objects, args.dtype)))


if __name__ == '__main__':
    main()
