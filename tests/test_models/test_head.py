import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.matching import Stages
from mmdet_rfdetr.models.detections import top_scores
from mmdet_rfdetr.ops.boxes import apply_deltas, cxcywh_to_xyxy

from .small import CLASSES, small_config

DIMS = 16


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make_head(**arguments):
    config = small_config()
    return MODELS.build(
        {
            **config['bbox_head'],
            'embed_dims': DIMS,
            'train_cfg': config['train_cfg'],
            'test_cfg': dict(max_per_img=20),
            **arguments,
        }
    )


@pytest.mark.parametrize('count', (1, 7, 50, 99))
def test_top_scores_equal_a_stable_sort(count):
    scores = torch.rand(3, 50).mul(10).round().div(10)
    expected = scores.argsort(descending=True, stable=True)[:, :count]
    found, indices = top_scores(scores, count)
    assert indices.equal(expected)
    assert found.equal(scores.gather(1, expected))


def test_every_nan_comes_first_whatever_its_sign():
    """As in torch's own topk; x86 makes NaN with a sign."""
    scores = torch.rand(1, 50)
    scores[0, [3, 7, 20]] = torch.nan
    scores.view(torch.int32)[0, 7] |= -(2**31)
    found, indices = top_scores(scores, 10)
    expected = scores.topk(10)
    assert indices[0, :3].tolist() == [3, 7, 20]
    assert set(expected.indices[0, :3].tolist()) == {3, 7, 20}
    assert indices[0, 3:].equal(expected.indices[0, 3:])
    torch.testing.assert_close(found, expected.values, equal_nan=True)


def test_an_assigner_of_mmdet_is_refused():
    assigner = dict(type='HungarianAssigner', match_costs=dict(type='BBoxL1Cost'))
    with pytest.raises(SettingError, match='HungarianAssigner.*RFDETRHungarianAss'):
        make_head(train_cfg=dict(assigner=assigner))


def test_outputs_of_all_layers_are_relative_to_the_same_boxes():
    head = make_head()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    states, references = torch.randn(2, 3, 5, DIMS), torch.rand(3, 5, 4)
    logits, boxes = head(states, references)
    for layer in range(2):
        hidden = states[layer]
        for linear in head.fc_reg[:2]:
            hidden = linear(hidden).relu()
        expected = apply_deltas(head.fc_reg[2](hidden), references)
        torch.testing.assert_close(boxes[layer], expected)
        torch.testing.assert_close(logits[layer], head.fc_cls(states[layer]))


def one_stage(logits, boxes):
    return Stages([logits], [boxes])


def metas(*sizes):
    return [dict(img_shape=size, scale_factor=(2.0, 0.5)) for size in sizes]


def samples(objects, img_metas):
    return [
        DetDataSample(gt_instances=gt, metainfo=meta)
        for gt, meta in zip(objects, img_metas, strict=True)
    ]


def test_detections_of_an_image():
    head = make_head(test_cfg=dict(max_per_img=3))
    logits = torch.full((1, 2, CLASSES), -9.0)
    logits[0, 1, 2], logits[0, 0, 4], logits[0, 1, 0] = 3, 2, 1
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.9, 0.5, 0.4, -0.1]]])
    (found,) = head.predict_by_feat(
        one_stage(logits, boxes), batch_img_metas=metas((40, 100)), rescale=False
    )
    assert found.labels.tolist() == [2, 4, 0]
    torch.testing.assert_close(
        found.scores, torch.tensor([3.0, 2, 1]).sigmoid(), rtol=1e-6, atol=0
    )
    # A query may give several detections; boxes end at the border of the image.
    expected = [[70, 20, 100, 20], [40, 16, 60, 24], [70, 20, 100, 20]]
    torch.testing.assert_close(found.bboxes, torch.tensor(expected).float())


def test_detections_in_pixels_of_the_original_image():
    head = make_head()
    stages = one_stage(torch.randn(1, 4, CLASSES), torch.rand(1, 4, 4))
    (inside,), (original,) = (
        head.predict_by_feat(stages, batch_img_metas=metas((40, 100)), rescale=rescale)
        for rescale in (False, True)
    )
    factors = torch.tensor([0.5, 2, 0.5, 2])
    torch.testing.assert_close(original.bboxes, inside.bboxes * factors)


def test_at_most_every_pair_of_query_and_class():
    stages = one_stage(torch.randn(1, 2, CLASSES), torch.rand(1, 2, 4))
    (found,) = make_head().predict_by_feat(stages, batch_img_metas=metas((8, 8)))
    assert len(found) == 2 * CLASSES
    assert len(set(zip(found.labels.tolist(), found.scores.tolist(), strict=True))) == (
        2 * CLASSES
    )


def test_weak_detections_are_dropped():
    head = make_head(test_cfg=dict(max_per_img=20, score_thr=0.6))
    logits = torch.randn(2, 4, CLASSES)
    logits[1, 0, 0] = torch.nan  # to be seen
    found = head.predict_by_feat(
        one_stage(logits, torch.rand(2, 4, 4)), batch_img_metas=metas((8, 8), (8, 8))
    )
    for image, result in enumerate(found):
        assert len(result) == (~(logits[image].sigmoid() <= 0.6)).sum()
    assert found[1].scores.isnan().sum() == 1


@pytest.mark.parametrize('name', ('train_cfg', 'test_cfg'))
def test_unknown_key(name):
    with pytest.raises(ValueError, match=f"'nms'.*{name}"):
        make_head(**{name: dict(nms=0.5)})


def instances(*counts):
    made = []
    for count in counts:
        boxes = cxcywh_to_xyxy(0.3 + 0.4 * torch.rand(count, 4))
        made.append(
            InstanceData(
                bboxes=boxes * torch.tensor([100.0, 40, 100, 40]),
                labels=torch.randint(CLASSES, (count,)),
            )
        )
    return made


def loss(head, objects, *, layers=2, groups=2, queries=6):
    rows = groups * queries
    batch = len(objects)
    outputs = [
        torch.randn(layers, batch, rows, CLASSES, requires_grad=True),
        torch.rand(layers, batch, rows, 4, requires_grad=True),
        torch.randn(batch, rows, CLASSES, requires_grad=True),
        torch.rand(batch, rows, 4, requires_grad=True),
    ]
    losses = head.loss(
        Stages([*outputs[0], outputs[2]], [*outputs[1], outputs[3]], num_groups=groups),
        samples(objects, metas(*[(40, 100)] * batch)),
    )
    return losses, outputs


def test_names_of_the_loss_terms():
    stages = Stages([torch.zeros(1, 2, 3)] * 4, [torch.zeros(1, 2, 4)] * 4)
    assert stages.prefixes == ['d0.', 'd1.', '', 'enc_']
    assert stages.last_layer().prefixes == ['']
    losses, _ = loss(make_head(), instances(2, 1))
    assert set(losses) == {
        prefix + term
        for prefix in ('d0.', '', 'enc_')
        for term in ('loss_cls', 'loss_bbox', 'loss_iou')
    }
    assert all(
        value.shape == () and value.dtype.is_floating_point for value in losses.values()
    )


def test_targets_are_relative_to_the_image_without_padding():
    objects = instances(1, 0, 2)
    sizes = metas((40, 100), (8, 8), (20, 50))
    targets = make_head().get_targets(samples(objects, sizes))
    assert targets.counts == (1, 0, 2)
    assert targets.labels.tolist() == [
        label for item in objects for label in item.labels.tolist()
    ]
    corners = cxcywh_to_xyxy(targets.boxes)
    sizes = torch.tensor([[100.0, 40, 100, 40], [50, 20, 50, 20], [50, 20, 50, 20]])
    expected = torch.cat([item.bboxes for item in objects])
    torch.testing.assert_close(corners * sizes, expected, rtol=1e-5, atol=1e-4)


def test_losses_are_divided_by_groups_times_objects():
    head = make_head()
    torch.manual_seed(1)
    losses, outputs = loss(head, instances(2, 1))
    logits = outputs[0][1]
    targets = head.get_targets(_again(2, 1))
    matches = head.assigner.assign(
        Stages([logits], [outputs[1][1]], num_groups=2), targets
    )
    boxes = outputs[1][1][matches.images, matches.rows]
    distance = (boxes - targets.boxes[matches.targets]).abs().sum()
    torch.testing.assert_close(losses['loss_bbox'], 5 * distance / (2 * 3))


def _again(*counts):
    """The objects that :func:`loss` saw after the same seed."""
    torch.manual_seed(1)
    return samples(instances(*counts), metas(*[(40, 100)] * len(counts)))


def test_a_batch_without_objects_has_a_loss_and_gradients():
    losses, outputs = loss(make_head(), instances(0, 0))
    assert losses['loss_cls'] > 0
    for name in ('loss_bbox', 'd0.loss_iou', 'enc_loss_bbox'):
        assert losses[name] == 0
    sum(losses.values()).backward()
    assert outputs[0].grad.any() and outputs[2].grad.any()
    # Boxes take part, so that every rank of a parallel run has all gradients.
    assert outputs[1].grad is not None and not outputs[1].grad.any()


def test_degenerate_predictions_have_finite_losses():
    head = make_head()
    objects = instances(2)
    logits = torch.randn(1, 1, 6, CLASSES) * 60
    boxes = torch.rand(1, 1, 6, 4)
    boxes[..., 2:] = -1
    logits.requires_grad_()
    boxes.requires_grad_()
    losses = head.loss(
        Stages([logits[0]] * 2, [boxes[0]] * 2), samples(objects, metas((40, 100)))
    )
    sum(losses.values()).backward()
    for value in (*losses.values(), logits.grad, boxes.grad):
        assert value.isfinite().all()
