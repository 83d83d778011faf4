"""A decoder of no layers: the outputs of the encoder are the predictions."""

import pytest
import torch

from mmdet_rfdetr.errors import CheckpointError
from tests import factory


@pytest.fixture(scope='module')
def models():
    """Of two layers, and of none with the same weights."""
    with_layers = factory.build_model()
    without = factory.build_model(**{'decoder.num_layers': 0})
    kept = without.state_dict()
    weights = {n: v for n, v in with_layers.state_dict().items() if n in kept}
    without.load_state_dict(weights)
    return with_layers, without


def losses_of(model):
    data = model.data_preprocessor(factory.batch((2, 3)), True)
    return model.train()(**data, mode='loss')


def test_outputs_are_those_of_the_encoder(models):
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        full, none = (model.eval()(images, mode='tensor') for model in models)
    assert none['aux_outputs'] == []
    for key in ('pred_logits', 'pred_boxes'):
        assert torch.equal(none[key], full['enc_outputs'][key])
        assert torch.equal(none[key], none['enc_outputs'][key])
        assert not torch.equal(none[key], full[key])


def test_detections_are_those_of_the_encoder(models):
    data = models[1].data_preprocessor(factory.batch((0, 0)), False)
    with torch.no_grad():
        results = models[1].eval()(**data, mode='predict')
        raw = models[1](data['inputs'], mode='tensor')
    for sample, logits in zip(results, raw['pred_logits'], strict=True):
        best = logits.sigmoid().flatten().topk(10).values
        assert torch.equal(sample.pred_instances.scores, best)


def test_losses_are_those_of_the_encoder(models):
    full, none = map(losses_of, models)
    assert {*none} == {'loss_cls', 'loss_bbox', 'loss_iou'}
    for name, value in none.items():
        torch.testing.assert_close(value, full[f'enc_{name}'])
    models[1].parse_losses(none)[0].backward()
    assert models[1].query_selection.fc_cls.weight.grad.any()


def test_its_checkpoint_is_its_own(models):
    full, none = models
    again = factory.build_model(**{'decoder.num_layers': 0})
    again.load_state_dict(none.state_dict())
    with pytest.raises(CheckpointError, match=r'decoder layers 2 \(model: 0\)'):
        again.load_state_dict(full.state_dict())
    with pytest.raises(CheckpointError, match=r'decoder layers 0 \(model: 2\)'):
        full.load_state_dict(none.state_dict())
