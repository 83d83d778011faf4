"""Asking the official package, and comparing its answer with this one's.

It is an optional extra, ``pip install rfdetr==1.11.2``. Where the two cannot live
together, ``RFDETR_OFFICIAL_PYTHON`` names the Python of another environment that has
it. Tests that ask skip without either.
"""

import importlib.util
import json
import os
import sys

import numpy as np
import pytest
import torch

from tests import parity
from tests.interpreter import run

PYTHON = os.environ.get('RFDETR_OFFICIAL_PYTHON') or (
    sys.executable if importlib.util.find_spec('rfdetr') else None
)
needs_official = pytest.mark.skipif(
    PYTHON is None,
    reason='official package absent: install rfdetr or set RFDETR_OFFICIAL_PYTHON',
)


def ask(folder, cases):
    """Let the official package work on cases, in a process of its own."""
    request, answer = folder / 'request.json', folder / 'answer.npz'
    request.write_text(json.dumps(cases))
    result = run([PYTHON, '-W', 'ignore', '-m', 'tests.official', request, answer])
    assert result.returncode == 0, result.stderr
    with np.load(answer) as archive:
        found = [{} for _ in cases]
        for key in archive.files:
            index, name = key.split('/', 1)
            found[int(index)][name] = archive[key]
    return found


def compare_eval(case, model, expected, tolerances):
    """Compare all stages of an evaluation, and the detections; our stages."""
    images, samples = parity.rule_batch(
        case['sizes'], case['batch_size'], seed=case['seed']
    )
    stages = parity.eval_stages(model, images, samples)
    expected = parity.without_unused_blocks(expected, model)
    detections = [
        {
            name.removeprefix(f'image{image}_'): expected.pop(name)
            for name in list(expected)
            if name.startswith(f'image{image}_')
        }
        for image in range(len(samples))
    ]
    parity.assert_stages_agree(stages, expected, tolerances)
    sizes = case.get('original_sizes', case['sizes'])
    for sample, size in zip(samples, sizes, strict=True):
        parity.set_original_size(sample, size)
    with torch.no_grad():
        results = model(images, samples, 'predict')
    for image, (result, wanted) in enumerate(zip(results, detections, strict=True)):
        found = dict(result.pred_instances.items())
        parity.assert_detections_agree(
            f'image{image}',
            found,
            dict(
                scores=wanted['scores'],
                labels=wanted['labels'],
                bboxes=wanted['boxes'],
            ),
            box_margin=2e-5 * max(sizes[image]),
        )
        if 'masks' in wanted:
            assert_masks_agree(f'image{image}', found, wanted)
    return stages


def assert_masks_agree(name, ours, expected):
    """Compare masks of detections, but for those with nearly equal scores."""
    same = ours['labels'].numpy() == expected['labels']
    close = np.abs(ours['scores'].numpy() - expected['scores']) < 1e-5
    boxes = np.abs(ours['bboxes'].numpy() - expected['boxes']).max(1) < 0.1
    same &= close & boxes
    assert same.mean() >= 0.9, f'{name}: most detections are in another order'
    masks = ours['masks'].numpy()[same]
    wanted = expected['masks'][same, 0]
    assert masks.shape == wanted.shape
    assert wanted.any() and not wanted.all()
    # Where a logit is nearly zero, rounding decides.
    different = (masks != wanted).sum((1, 2))
    assert different.max() <= 1e-3 * wanted[0].size, (
        f'{name} is the first stage that diverges: {different.max()} pixels of '
        f'{wanted[0].size} of a mask differ'
    )


def compare_train(case, config, expected):
    """Compare all stages of a training step; our stages."""
    model = parity.rule_model(config, case['seed'])
    images, samples = parity.case_batch(case, config)
    stages = parity.train_stages(model, images, samples)
    expected = {
        name: value
        for name, value in parity.without_unused_blocks(expected, model).items()
        if not name.endswith('.attention.key.bias')
    }
    parity.assert_stages_agree(stages, expected, parity.TRAIN_TOLERANCES)
    parity.assert_few_gradients_jump(stages, expected)
    return stages
