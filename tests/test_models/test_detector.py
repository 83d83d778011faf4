import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.matching import Stages
from mmdet_rfdetr.models.memory import Memory
from mmdet_rfdetr.ops.boxes import apply_deltas
from tests import parity

from .small import CLASSES, SIZES, small_config

QUERIES, GROUPS = SIZES['num_queries'], SIZES['group_detr']


def build(**sizes):
    return parity.rule_model(small_config(**sizes))


def inputs(*sizes, **options):
    return parity.rule_batch(sizes, **options)


SQUARE = ((64, 64), (64, 64))


@pytest.mark.parametrize('training', (False, True))
def test_outputs(training):
    model = build(dec_layers=3).train(training)
    outputs = model(*inputs(*SQUARE))
    count = QUERIES * (GROUPS if training else 1)
    stages = [outputs, *outputs['aux_outputs'], outputs['enc_outputs']]
    assert len(stages) == 4
    for stage in stages:
        assert stage['pred_logits'].shape == (2, count, CLASSES)
        assert stage['pred_boxes'].shape == (2, count, 4)
        assert all(
            stage[f'pred_{name}'].dtype == torch.float32 for name in ('logits', 'boxes')
        )


@pytest.mark.parametrize('sizes', ({}, dict(img_shape=SQUARE[0])))
def test_samples_that_state_no_size_of_the_batch_have_no_padding(sizes):
    model = build().eval()
    images, _ = inputs(*SQUARE)
    samples = [DetDataSample(metainfo=sizes) for _ in images]
    expected = model(images)
    assert model(images, samples)['pred_boxes'].equal(expected['pred_boxes'])


def test_numbers_of_queries_and_groups():
    model = build(num_queries=7, group_detr=2)
    assert (model.num_queries, model.num_groups) == (7, 2)
    assert model.query_embedding.shape == (2, 7, 32)
    assert model.reference_embedding.shape == (2, 7, 4)
    images, samples = inputs(*SQUARE)
    assert model.train()(images)['pred_logits'].shape[1] == 14
    assert model.eval()(images)['pred_logits'].shape[1] == 7


def test_evaluation_uses_the_first_group():
    """With the weights of group 1 in place of group 0, it gives what group 1 gives."""
    model = build()
    images, _ = inputs(*SQUARE)
    with torch.no_grad():
        trained = model.train()(images)
        for parameter in (
            model.query_embedding,
            model.reference_embedding,
            *model.query_selection.parameters(),
        ):
            parameter[0] = parameter[1]
        evaluated = model.eval()(images)
    group = slice(QUERIES, 2 * QUERIES)
    for one, other in (
        (evaluated, trained),
        (evaluated['aux_outputs'][0], trained['aux_outputs'][0]),
        (evaluated['enc_outputs'], trained['enc_outputs']),
    ):
        for name in ('pred_logits', 'pred_boxes'):
            torch.testing.assert_close(
                one[name], other[name][:, group], rtol=1e-4, atol=1e-5
            )


def test_queries_are_placed_on_the_proposals():
    model = build().eval()
    seen = parity.eval_stages(model, inputs(*SQUARE)[0])
    expected = apply_deltas(
        model.reference_embedding[0], torch.from_numpy(seen['enc_boxes'])
    )
    torch.testing.assert_close(torch.from_numpy(seen['references']), expected)


@pytest.mark.parametrize('training', (False, True))
def test_fewer_tokens_than_queries(training):
    """The proposals of all groups fill the first rows; the others are learned."""
    model = build(num_queries=20, num_select=300).train(training)
    groups = GROUPS if training else 1
    images, _ = inputs((32, 32))
    stages = []
    model.decoder.register_forward_pre_hook(
        lambda module, inputs, keywords: stages.append(keywords['references']),
        with_kwargs=True,
    )
    outputs = model(images)
    assert outputs['enc_outputs']['pred_logits'].shape[1] == groups * 16
    assert outputs['pred_logits'].shape[1] == groups * 20
    learned = model.reference_embedding[:groups].flatten(0, 1)
    boxes = outputs['enc_outputs']['pred_boxes'][0]
    placed, rest = stages[0][0].split((groups * 16, groups * 4))
    torch.testing.assert_close(placed, apply_deltas(learned[: groups * 16], boxes))
    assert rest.equal(learned[groups * 16 :])


def test_proposals_are_not_trained_by_the_decoder():
    model = build().train()
    outputs = model(inputs(*SQUARE)[0])
    outputs['pred_boxes'].sum().backward()
    assert model.reference_embedding.grad.any()
    assert all(p.grad is None for p in model.query_selection.parameters())


def test_padding_of_the_memory_changes_nothing():
    """What stands in the padding of the memory is neither selected nor read."""
    model = build().eval()
    images, samples = inputs((64, 48), (48, 64), batch_size=(64, 64))
    (level,) = model.extract_feat(images)
    padding = Memory.flatten([level], samples).padding.view(2, 1, 8, 8)
    found = model.forward_transformer([level], samples)
    noise = torch.where(padding, 9.0, level)
    other = model.forward_transformer([noise], samples)
    assert other[0].equal(found[0])
    assert other[2]['bbox_preds'].equal(found[2]['bbox_preds'])


def test_mask_of_no_padding_changes_nothing():
    """The path for padded batches gives the same where only one image is padded."""
    model = build().eval()
    images, samples = inputs(*SQUARE)
    _, padded = inputs((64, 64), (64, 48), batch_size=(64, 64))
    with torch.no_grad():
        plain, masked = model(images, samples), model(images, padded)
    for name in ('pred_logits', 'pred_boxes'):
        torch.testing.assert_close(
            plain[name][0], masked[name][0], rtol=1e-4, atol=1e-5
        )
        assert not plain[name][1].allclose(masked[name][1])


def test_predict_gives_detections_of_the_original_image():
    model = build().eval()
    images, samples = inputs(*SQUARE)
    samples[1].set_metainfo(dict(ori_shape=(128, 32), scale_factor=(2.0, 0.5)))
    with torch.no_grad():
        results = model(images, samples, 'predict')
    for sample, (height, width) in zip(results, ((64, 64), (128, 32)), strict=True):
        found = sample.pred_instances
        assert len(found) == SIZES['num_select']
        assert (found.scores.diff() <= 0).all()
        assert (found.bboxes >= 0).all()
        assert (found.bboxes <= torch.tensor([width, height] * 2)).all()
        assert found.bboxes[:, 3].max() > height / 2


def test_detections_are_those_of_the_last_layer():
    model = build(dec_layers=3).eval()
    images, samples = inputs(*SQUARE)
    with torch.no_grad():
        outputs = model(images, samples)
        detected = model(images, samples, 'predict')
    expected = model.bbox_head.predict_by_feat(
        Stages([outputs['pred_logits']], [outputs['pred_boxes']]),
        batch_img_metas=[sample.metainfo for sample in samples],
    )
    for sample, instances in zip(detected, expected, strict=True):
        for name in ('bboxes', 'scores', 'labels'):
            assert sample.pred_instances[name].equal(instances[name])


def test_loss_does_not_depend_on_how_the_batch_is_padded_with_empty_images():
    """Images without objects add to the classification only."""
    model = build().train()
    images, samples = inputs(*SQUARE, counts=(3, 0))
    losses = model(images, samples, 'loss')
    alone = model(images[:1], samples[:1], 'loss')
    for name, value in losses.items():
        if 'cls' in name:
            assert value > alone[name]
        else:
            torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)


def test_frozen_backbone_gets_no_gradient():
    config = small_config()
    config['backbone']['frozen_stages'] = 4
    model = MODELS.build(config).train()
    sum(model(*inputs(*SQUARE, counts=(2, 1)), 'loss').values()).backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.neck.parameters())


def test_the_work_of_a_training_step_can_be_counted_by_module():
    """PyTorch's counter hooks into gradients, also of what is scored without any."""
    model = build().train()
    images, samples = inputs(*SQUARE, counts=(2, 1))
    with FlopCounterMode(display=False) as counter:
        sum(model(images, samples, 'loss').values()).backward()
    counts = counter.get_flop_counts()
    name = type(model).__name__
    assert counts[f'{name}.query_selection.fc'] and counts[f'{name}.decoder.layers.0']


@pytest.mark.parametrize(
    'part',
    (
        *('', 'backbone', 'neck', 'decoder', 'bbox_head', 'bbox_head.loss_cls'),
        *('bbox_head.loss_iou', 'train_cfg.assigner'),
    ),
)
def test_an_unknown_argument_of_any_part(part):
    config = Config(small_config())
    config.merge_from_dict({f'{part}.size'.strip('.'): 3})
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        MODELS.build(config._cfg_dict)


def test_a_neck_for_other_maps_is_refused():
    config = small_config()
    width, *others = config['neck']['in_channels']
    for wrong in (others, [width, 2 * width]):
        config['neck'] = dict(config['neck'], in_channels=wrong)
        with pytest.raises(SettingError, match='does not take .*neck.in_channels'):
            MODELS.build(config)


def test_every_group_meets_its_own_queries():
    """A change of one group's table changes the outputs of that group alone."""
    model = build().train()
    images, _ = inputs(*SQUARE)
    with torch.no_grad():
        before = model(images)['pred_logits']
        nn.init.normal_(model.query_embedding[1])
        changed = (model(images)['pred_logits'] - before).abs().amax(-1) > 1e-3
    changed = changed.view(2, GROUPS, QUERIES)
    assert changed[:, 1].all()
    assert not changed[:, 0].any() and not changed[:, 2].any()


def test_losses_and_detections_of_one_pass():
    model = build().train()
    images, samples = parity.rule_batch(
        ((96, 96), (96, 96)), counts=(2, 1), num_classes=3
    )
    stages = model._stages(images, samples)
    torch.manual_seed(0)
    losses = model.bbox_head.loss(stages, samples)
    found = model.bbox_head.predict(stages, samples, rescale=False)
    torch.manual_seed(0)
    assert losses == model.loss(images, samples)
    expected = model.eval().predict(images, samples, rescale=False)
    for instances, sample in zip(found, expected, strict=True):
        of_sample = sample.pred_instances
        assert instances.keys() == of_sample.keys()
        torch.testing.assert_close(instances.scores, of_sample.scores)
        torch.testing.assert_close(instances.bboxes, of_sample.bboxes)
