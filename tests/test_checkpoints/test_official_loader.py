"""The official loader's results, recorded for ten checkpoints of Nano."""

import copy
import functools

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mmdet_rfdetr import config
from mmdet_rfdetr.checkpoints import to_official
from tests import fixtures

from .official import VARIANTS, official_shapes

pytestmark = fixtures.needs_fixtures

CASES = {
    'same': 384,
    'classes_90_to_3': 384,
    'classes_90_to_120': 384,
    'classes_90_to_250': 384,
    'classes_4_into_default': 384,
    'classes_4_into_explicit_90': 384,
    'queries_300_to_100_with_args': 384,
    'queries_300_to_100_without_args': 384,
    'groups_13_to_5_with_args': 384,
    'resolution_384_to_512': 512,
}
"""Case to input size; a checkpoint of seed 23 has four classes."""

# One of each kind.
QUICK = (
    *('same', 'classes_90_to_3', 'classes_90_to_250', 'resolution_384_to_512'),
    *('queries_300_to_100_with_args', 'groups_13_to_5_with_args'),
)

ARRAYS = {
    'class_embed.bias': 'class_embed.bias',
    'class_embed.weight': 'class_embed.weight',
    'enc12_class.bias': 'transformer.enc_out_class_embed.{last}.bias',
    'refpoint_embed': 'refpoint_embed.weight',
    'query_feat': 'query_feat.weight',
}


@functools.cache
def checkpoint_weights(seed):
    rows = {22: 91, 23: 5}[seed]
    params = [
        {'name': name, 'shape': shape, 'dtype': 'float32' if any(shape) else 'bool'}
        for name, shape in official_shapes(
            **{**VARIANTS['nano'], 'num_rows': rows}
        ).items()
    ]
    state = fixtures.rule().synthetic_state(params, seed)
    return {name: torch.from_numpy(value) for name, value in state.items()}


@pytest.fixture(scope='module')
def recorded():
    return fixtures.load_pair('adapt')


@pytest.fixture(scope='module')
def base_config():
    return Config.fromfile(config('rfdetr_nano_coco.py')).model


@pytest.mark.parametrize(
    'case',
    [
        pytest.param(case, marks=[] if case in QUICK else pytest.mark.long)
        for case in CASES
    ],
)
def test_the_official_loader_is_matched(case, recorded, base_config, tmp_path):
    arrays, described = recorded
    description = described[case]
    content = {'model': checkpoint_weights(description['checkpoint_seed'])}
    if description['checkpoint_args'] is not None:
        content['args'] = description['checkpoint_args']
    path = tmp_path / 'official.pth'
    torch.save(content, path)
    size = CASES[case]
    overrides = description['overrides']
    model = copy.deepcopy(base_config)
    # An official model of C classes has C + 1 rows.
    model.bbox_head.num_classes = description['num_classes_after'] + 1
    model.num_queries = overrides.get('num_queries', 300)
    model.num_groups = overrides.get('group_detr', 13)
    model.backbone.pos_embed_size = size // 16
    model.precision = None
    model.data_preprocessor = dict(type='DetDataPreprocessor')
    model = MODELS.build({'_scope_': 'mmdet', **model}).eval()
    load_checkpoint(model, str(path), strict=True)

    loaded = to_official(model.state_dict())
    for name, expected in description['tensors'].items():
        assert list(loaded[name].shape) == expected['shape'], name
        value = loaded[name].double()
        assert value.sum().item() == pytest.approx(expected['sum'], abs=2e-3), name
        assert value.abs().sum().item() == pytest.approx(expected['abs_sum'], rel=1e-6)
    last = model.num_groups - 1
    for key, name in ARRAYS.items():
        stored = f'{case}/{key}'
        value = fixtures.strided(
            loaded[name.format(last=last)], described[stored]['stride']
        )
        assert (value == arrays[stored]).all(), stored
    if f'{case}_pred_logits' not in described:
        return
    images = fixtures.rule().image_batch(22, 1, size, size)
    with torch.no_grad():
        outputs = model(torch.from_numpy(images), None, mode='tensor')
    for output, atol in (('pred_logits', 1e-4), ('pred_boxes', 2e-5)):
        value = fixtures.strided(
            outputs[output], described[f'{case}_{output}']['stride']
        )
        torch.testing.assert_close(
            torch.from_numpy(value),
            torch.from_numpy(arrays[f'{case}_{output}']),
            rtol=1e-4,
            atol=atol,
            msg=lambda message, output=output: f'{output}: {message}',
        )
