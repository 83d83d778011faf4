"""Models of the official shapes with weights from a rule, and batches for them."""

import torch

from .. import golden, parity
from ..fixtures import load_json, rule


def golden_batch(name, training):
    """Model, images and samples of a small case that comes with the project.

    Args:
        name: one of ``golden.CASES``.
        training: these cases are the same for training and evaluation.
    """
    case = golden.CASES[name]
    config = parity.case_config(case)
    model = parity.rule_model(config, case['seed'])
    return model, *parity.case_batch(case, config)


def fixture_batch(name, training):
    """Model of full size, and the first image of a parity fixture."""
    config = load_json(f'{name}/config')
    sizes, stage = dict(config['model']), 'train' if training else 'eval'
    if training:
        sizes.update(config['train_overrides'])
    seed = config['train_case_seed' if training else 'case_seed']
    model = parity.build_model(
        parity.model_config(sizes, config['num_logits']),
        lambda key, shape: rule().weight(key, shape, seed),
    )
    shapes = config[f'{stage}_input'][:1]
    images = rule().image_batch(seed, 1, *shapes[0])
    objects = rule().targets(seed, config['target_counts'][:1], config['num_logits'])
    samples = parity.make_samples(shapes, shapes[0], objects)
    return model, torch.from_numpy(images), samples
