"""Models of the official shapes with weights from a rule, and batches for them."""

import torch

from .. import golden, golden_rule, parity
from ..fixtures import load_json, rule


def golden_batch(name, training):
    """Model, images and samples of a small case that comes with the project.

    Args:
        name: one of ``golden.CASES``.
        training: these cases are the same for training and evaluation.
    """
    config = golden.CASES[name]
    sizes, seed = config['model'], config['seed']
    num_logits = sizes['num_classes'] + 1
    masks = config['batch_size'] if sizes.get('segmentation_head') else None

    def points(key, shape, device):
        return torch.from_numpy(golden_rule.draw(key, shape, seed)).to(device)

    model = parity.build_model(
        parity.model_config(sizes, num_logits, points),
        lambda key, shape: golden_rule.weight(key, shape, seed),
    )
    images, _ = golden_rule.images(config['sizes'], config['batch_size'], seed)
    objects = golden_rule.objects(config['counts'], num_logits, seed, masks)
    samples = parity.make_samples(config['sizes'], config['batch_size'], objects)
    return model, torch.from_numpy(images), samples


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
