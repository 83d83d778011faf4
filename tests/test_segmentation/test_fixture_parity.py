"""The numbers of the official package on Seg Nano: masks, losses, gradients."""

import re

import numpy as np
import pytest
import torch

from mmdet_rfdetr.masks import MaskFeatures
from tests import parity
from tests.fixtures import load_json, load_pair, needs_fixtures, rule, strided
from tests.test_segmentation import case

pytestmark = needs_fixtures

MASKS = 2e-3
"""Rounding moves mask logits, of magnitude 20, by 3e-4."""


def layers(outputs):
    """Outputs of the stages by the fixture's names."""
    named = {f'aux{i}': layer for i, layer in enumerate(outputs['aux_outputs'])}
    return {'final': outputs, **named, 'enc': outputs['enc_outputs']}


@pytest.fixture(scope='module')
def evaluated():
    model, config = case.build(training=False)
    model.eval()
    with torch.no_grad():
        return model, config, model(case.images(config, 'eval'))


@pytest.mark.parametrize('name', ['pred', 'aux0', 'aux1', 'aux2', 'enc'])
def test_masks_of_every_stage(evaluated, name):
    arrays, description = load_pair('seg_nano/eval')
    masks = layers(evaluated[2])[name.replace('pred', 'final')]['pred_masks']
    entry = description[f'{name}_masks']
    assert list(masks.shape) == entry['shape']
    ours = strided(masks, entry['stride'])
    np.testing.assert_allclose(ours, arrays[f'{name}_masks'], rtol=0, atol=MASKS)
    assert masks.double().abs().sum() == pytest.approx(entry['abs_sum'], rel=1e-5)


@pytest.mark.parametrize('size', [0, 1])
def test_detections(evaluated, size):
    model, config, _ = evaluated
    arrays, description = load_pair('seg_nano/detections')
    sizes = description['target_sizes'][size]
    samples = parity.make_samples(config['eval_input'], config['eval_input'][0])
    for sample, (height, width) in zip(samples, sizes, strict=True):
        old_height, old_width = sample.img_shape
        sample.set_metainfo(
            dict(
                ori_shape=(height, width),
                scale_factor=(old_width / width, old_height / height),
            )
        )
    with torch.no_grad():
        results = model(case.images(config, 'eval'), samples, 'predict')
    for image, sample in enumerate(results):
        found, prefix = sample.pred_instances, f'size{size}_image{image}'
        np.testing.assert_array_equal(found.labels, arrays[f'{prefix}_labels'])
        np.testing.assert_allclose(found.scores, arrays[f'{prefix}_scores'], atol=1e-5)
        np.testing.assert_allclose(
            found.bboxes, arrays[f'{prefix}_boxes'], rtol=0, atol=2e-5 * max(sizes[0])
        )
        assert found.masks.dtype == torch.bool
        assert found.masks.shape == (100, *sizes[image])
        pixels = np.array(description[f'{prefix}_mask_pixels'])
        difference = np.abs(found.masks.sum((1, 2)).numpy() - pixels)
        assert difference.max() <= 1e-4 * pixels.max() + 2


def test_postprocess_with_ties():
    """No network: masks that belong to the right one of many equal scores."""
    model, _ = case.build(training=False)
    arrays, description = load_pair('postprocess')
    make_noise = rule().noise
    logits = np.round(make_noise('post/logits', 12, (2, 60, 91)) * 16) / 16 - 1
    masks = make_noise('post/masks', 12, (2, 60, 24, 24)).astype(np.float32)
    sizes = description['target_sizes'][1]
    model.bbox_head.test_cfg['max_per_img'] = 30
    results = model.bbox_head.predict_by_feat(
        torch.from_numpy(logits.astype(np.float32)),
        torch.from_numpy(arrays['input_boxes']),
        batch_img_metas=[
            dict(
                img_shape=(96, 96),
                ori_shape=(height, width),
                scale_factor=(96 / width, 96 / height),
            )
            for height, width in sizes
        ],
        # Each query picks one channel: its own mask.
        mask_preds=MaskFeatures(
            torch.from_numpy(masks), torch.eye(60).expand(2, -1, -1), torch.zeros(1)
        ),
    )
    for image, found in enumerate(results):
        prefix = f'seg_size1_image{image}'
        np.testing.assert_array_equal(found.labels, arrays[f'{prefix}_labels'])
        shape = (30, *sizes[image])
        packed = arrays[f'{prefix}_masks']
        expected = np.unpackbits(packed, count=np.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(found.masks, expected.astype(bool))


@pytest.fixture(scope='module')
def trained():
    """One training step with the fixture's random draws."""
    drawn = []
    seed = load_json('seg_nano/config')['train_case_seed']

    def points(name, shape, device):
        drawn.append(dict(tag=f'rand/{name}', shape=list(shape)))
        uniform = rule().uniform(f'rand/{name}', seed, shape)
        return torch.from_numpy(uniform).to(device)

    model, config = case.build(training=True, points=points)
    model.train()
    images = case.images(config, 'train')
    with torch.no_grad():
        outputs = model(images)
    matches = []
    assign = model.bbox_head.assigner.assign

    def observed_assign(*args):
        matches.append(assign(*args))
        return matches[-1]

    model.bbox_head.assigner.assign = observed_assign
    losses = model(images, case.training_samples(config), 'loss')
    sum(losses.values()).backward()
    return model, config, outputs, matches[0], losses, drawn


@pytest.mark.parametrize('name', case.NAMES)
def test_sparse_outputs_of_training(trained, name):
    arrays, description = load_pair('seg_nano/train')
    masks = layers(trained[2])[name]['pred_masks']
    assert set(masks) == {'spatial_features', 'query_features', 'bias'}
    for ours, theirs in (
        ('spatial_features', f'{name}_mask_spatial'),
        ('query_features', f'{name}_mask_query'),
    ):
        entry = description[theirs]
        assert list(masks[ours].shape) == entry['shape']
        np.testing.assert_allclose(
            strided(masks[ours], entry['stride']), arrays[theirs], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize('name', case.NAMES)
def test_matches(trained, name):
    _, config, _, matches, _, _ = trained
    arrays, _ = load_pair('seg_nano/train')
    stage = case.NAMES.index(name)
    queries, targets = matches.of_stage(stage)
    counts = matches.pair_counts[stage]
    assert counts == (52, 0, 39)
    for image, (rows, objects) in enumerate(
        zip(queries.split(counts), targets.split(counts), strict=True)
    ):
        prefix = f'{name}_match_image{image}'
        np.testing.assert_array_equal(rows, arrays[f'{prefix}_query'])
        first = sum(config['target_counts'][:image])
        np.testing.assert_array_equal(objects - first, arrays[f'{prefix}_target'])


def test_points_are_drawn_in_official_order(trained):
    expected = load_json('seg_nano/train')['random_draws']
    for draw in expected:
        del draw['sum']
    # Drawing in the same order makes a run with the same seed comparable.
    assert trained[5] == expected


def test_losses(trained):
    losses = trained[4]
    description = load_json('seg_nano/train')
    names = dict(ce='cls', bbox='bbox', giou='iou', mask_ce='mask', mask_dice='dice')
    compared = 0
    for name, weight in description['weights'].items():
        term, stage = re.fullmatch(r'loss_(\D+?)(?:_(\d+|enc))?', name).groups()
        prefix = {None: '', 'enc': 'enc_'}.get(stage, f'd{stage}.')
        expected = weight * description['losses'][name]
        tolerance = 1e-4 if term.startswith('mask') else 1e-5
        ours = losses[f'{prefix}loss_{names[term]}'].item()
        assert ours == pytest.approx(expected, rel=tolerance), name
        compared += 1
    assert compared == len(losses) == 25
    total = sum(losses.values()).item()
    assert total == pytest.approx(description['total'], rel=1e-5)


def test_gradients(trained):
    arrays, description = load_pair('seg_nano/train')
    gradients = parity.official_entries(
        {name: p.grad for name, p in trained[0].named_parameters()}
    )
    norms = description['grad_norm']
    assert sum(name.startswith('segmentation_head.') for name in norms) == 35
    for name, norm in norms.items():
        if not name.endswith('.attention.key.bias'):  # zero but for rounding
            assert gradients[name].norm().item() == pytest.approx(norm, rel=3e-3), name
    total = torch.stack([g.norm() for g in gradients.values()]).norm().item()
    assert total == pytest.approx(description['grad_total_norm'], rel=1e-4)
    for key, expected in arrays.items():
        name = key.removeprefix('grad/')
        if name == key or name.endswith('.attention.key.bias'):
            continue
        ours = strided(gradients[name], description[key]['stride'])
        difference = np.abs(ours.reshape(expected.shape) - expected)
        scale = np.abs(expected).mean()
        # A ReLU that switches moves single numbers.
        assert np.median(difference) <= 1e-3 * scale, name
        assert difference.max() <= 0.05 * scale, name
