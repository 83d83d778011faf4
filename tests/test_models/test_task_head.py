"""A task that the detector, the box head and the matching have never heard of."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from scipy.optimize import linear_sum_assignment

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.models import TaskHead
from tests import parity

from .number_head import numbered_batch, with_numbers
from .small import small_config

BFLOAT16 = dict(device_type='cpu', dtype='bfloat16')
LAST = ('d0.', '', 'enc_')


def build(precision=None, **assigner):
    return parity.rule_model(
        dict(with_numbers(small_config(), **assigner), precision=precision)
    )


def batch(padded=False):
    second = (64, 48) if padded else (64, 64)
    return numbered_batch((64, 64), second, counts=(3, 1), batch_size=(64, 64))


CASES = pytest.mark.parametrize(
    ('precision', 'padded'),
    [(None, False), (None, True), (BFLOAT16, False), (BFLOAT16, True)],
    ids=('float32', 'padding', 'bfloat16', 'bfloat16, padding'),
)


@CASES
def test_training(precision, padded):
    model = build(precision).train()
    losses = model(*batch(padded), mode='loss')
    names = [f'{prefix}loss_number' for prefix in LAST]
    assert [name for name in losses if 'number' in name] == names
    loss, log_vars = model.parse_losses(losses)
    torch.testing.assert_close(loss, sum(losses.values()))
    assert log_vars['loss_number'] == losses['loss_number'] > 0
    loss.backward()
    assert model.number_head.fc.weight.grad.abs().sum() > 0
    assert model.number_head.fc.weight.grad.dtype == torch.float32
    alone = build(precision).train()
    sum(alone(*batch(padded), mode='loss')[name] for name in names).backward()
    # The number of a query comes from the decoder, and teaches it.
    assert alone.decoder.layers[0].linear1.weight.grad.any()


@CASES
def test_detecting(precision, padded):
    model = build(precision).eval()
    images, samples = batch(padded)
    seen = []
    with torch.no_grad():
        outputs = model(images, samples)
        model.number_head.register_forward_hook(lambda *args: seen.append(args[2]))
        found = model(images, samples, 'predict')
    for stage in (outputs, *outputs['aux_outputs'], outputs['enc_outputs']):
        assert stage['pred_numbers'].shape == stage['pred_logits'].shape[:2]
        assert stage['pred_numbers'].dtype == torch.float32
    ((scores,), (numbers,)) = seen[0].stage_logits, seen[0].tasks['number_head']
    scores, classes = scores.sigmoid().flatten(1), scores.shape[2]
    for sample, of_image, all_numbers in zip(found, scores, numbers, strict=True):
        instances = sample.pred_instances
        expected, indices = of_image.sort(descending=True, stable=True)
        count = len(instances)
        torch.testing.assert_close(instances.scores, expected[:count])
        assert instances.numbers.dtype == torch.float32
        assert instances.numbers.equal(all_numbers[indices[:count] // classes].float())


def test_matching_by_numbers_alone():
    weights = dict(cls_weight=0.0, bbox_weight=0.0, iou_weight=0.0, number_weight=2.0)
    model = build(**weights).train()
    images, samples = batch()
    stages = model._stages(images, samples)
    head = model.bbox_head
    targets = head.get_targets(samples)
    matches = head.assigner.assign(stages, targets, head.task_heads.values())
    numbers = stages.tasks['number_head'][stages.last].detach()
    of_layer = matches.stages == stages.last
    first, queries = sum(stages.sizes[: stages.last]), model.num_queries
    for image, start in enumerate((0, 3)):
        true = samples[image].gt_instances.numbers
        pairs = set()
        for group in range(model.num_groups):
            rows = slice(group * queries, (group + 1) * queries)
            costs = (numbers[image, rows, None] - true).abs()
            pairs |= {
                (first + rows.start + query, start + index)
                for query, index in zip(*linear_sum_assignment(costs), strict=True)
            }
        found = of_layer & (matches.images == image)
        columns = matches.rows[found].tolist(), matches.targets[found].tolist()
        assert set(zip(*columns, strict=True)) == pairs


def test_losses_and_detections_of_one_pass():
    model = build().train()
    images, samples = batch()
    stages = model._stages(images, samples)
    losses = model.bbox_head.loss(stages, samples)
    found = model.bbox_head.predict(stages, samples, rescale=False)
    assert losses == model.loss(images, samples)
    expected = model.eval()(images, samples, 'predict')
    for instances, sample in zip(found, expected, strict=True):
        torch.testing.assert_close(instances.numbers, sample.pred_instances.numbers)


def test_a_batch_without_objects():
    model = build().train()
    images, samples = numbered_batch((64, 64), counts=(0,))
    losses = model(images, samples, mode='loss')
    assert losses['loss_number'] == 0
    sum(losses.values()).backward()
    assert not model.number_head.fc.weight.grad.any()


def test_its_weights_are_saved_with_the_model():
    model = build()
    names = {name for name in model.state_dict() if 'number' in name}
    assert names == {'number_head.fc.weight', 'number_head.fc.bias'}
    other = copy.deepcopy(model)
    assert other.bbox_head.task_heads['number_head'] is other.number_head


def test_a_head_that_replaces_the_logits():
    """A task may have a say in the classes, and its head then in every stage."""

    class Louder(TaskHead):
        name = 'louder_head'

        def forward(self, stages, features):
            louder = [logits + 1 for logits in stages.stage_logits]
            return stages.with_logits(louder).with_task(self.name, louder)

        def get_targets(self, batch_gt_instances, batch_img_metas):
            return None

        def loss(self, stages, targets, matches):
            return {}

    plain = parity.rule_model(small_config())
    louder = parity.rule_model(dict(small_config(), louder_head=dict(type=Louder)))
    images, samples = batch()
    expected, found = plain(images), louder(images)
    torch.testing.assert_close(found['pred_logits'], expected['pred_logits'] + 1)
    expected, found = (m(images, samples, 'loss') for m in (plain, louder))
    assert found.keys() == expected.keys()
    assert found['loss_cls'] != expected['loss_cls']


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(numbr_head=dict(type='RFDETRNumberHead')), 'numbr_head.*not registered'),
        (dict(number_head=True), 'number_head=True'),
        (dict(number_head=dict(type='mmdet.DETRHead')), 'number_head.*DETRHead'),
        (dict(number_head=None), r'number_head=None and bbox_head\.loss_number'),
    ],
    ids=('unknown type', 'no config', 'of another detector', 'loss without a head'),
)
def test_heads_that_are_refused(changes, words, monkeypatch):
    config = with_numbers(small_config())
    kind = config['number_head']['type']
    monkeypatch.setitem(MODELS.module_dict, 'RFDETRToyHead', kind)
    with pytest.raises(SettingError, match=words):
        MODELS.build({**config, **changes})


def test_a_head_under_another_name_is_refused():
    config = with_numbers(small_config())
    config['numbr_head'] = config.pop('number_head')
    with pytest.raises(SettingError, match=r'numbr_head.*model\.number_head'):
        MODELS.build(config)


def test_misspelt_settings_of_a_task():
    for key in ('loss_numbr', 'number_weigth'):
        config = with_numbers(small_config())
        part = config['bbox_head'] if 'loss' in key else config['train_cfg']['assigner']
        part[key] = 1
        with pytest.raises(TypeError, match=f'unexpected keyword argument .{key}'):
            MODELS.build(config)
