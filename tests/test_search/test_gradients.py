"""Gradients of a draw: those of the stand-alone model, pulled back to the stored."""

import pytest
import torch

from mmdet_rfdetr.ops.resampling import resample_patch_kernel, resize_position_table
from mmdet_rfdetr.search import Subnet
from mmdet_rfdetr.search.supernet import set_subnet
from tests import factory
from tests.test_search.test_export import config, export
from tests.test_search.test_supernet import HOME, SPACE

TABLES = 'query_embedding', 'reference_embedding'


def step(model, data):
    """Losses of a batch, and the gradient of each parameter."""
    model.train().zero_grad()
    losses = model(**data, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    return {name: value.detach() for name, value in losses.items()}, grads


def batch(side):
    """Two images of a size, and their objects."""
    data = factory.batch((2, 3))
    for sample in data['data_samples']:
        sample.gt_instances.bboxes *= side / factory.SIDE
        sizes = dict.fromkeys(('img_shape', 'batch_input_shape'), (side, side))
        sample.set_metainfo(sizes)
    data['inputs'] = torch.randn(2, 3, side, side)
    return data


@pytest.mark.parametrize('size', [3, 6])
def test_the_gradient_of_a_resampled_kernel_is_right(size):
    kernel = torch.randn(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resample_patch_kernel(x, size), kernel)


def test_a_training_step_of_the_home_is_that_of_the_ordinary_model():
    data = batch(32)
    plain = step(factory.build_model(), data)
    model = factory.build_model(search_space=SPACE)
    set_subnet(model, Subnet(24, 3, 1, 1, 3))
    set_subnet(model, HOME)
    losses, gradients = step(model, data)
    for ours, theirs in zip((losses, gradients), plain, strict=True):
        assert ours.keys() == theirs.keys()
        assert [
            name for name in ours if not torch.equal(ours[name], theirs[name])
        ] == []


@pytest.mark.parametrize(
    'name', ['s24-p3-w2-d2-q6', 's36-p6-w1-d2-q6', 's40-p5-w1-d2-q5']
)
def test_gradients_of_another_draw_are_pulled_back(name):
    subnet = Subnet.parse(name)
    model = factory.build_model(search_space=SPACE)
    exported = export(model, config(), subnet)
    set_subnet(model, subnet)
    data = batch(subnet.image_size)
    losses, gradients = step(model, data)
    alone, expected = step(exported, data)
    assert losses.keys() == alone.keys()
    assert all(torch.equal(losses[key], alone[key]) for key in losses)

    def pulled_back(key, resize):
        stored = model.get_parameter(key).detach().clone().requires_grad_()
        resize(stored).backward(expected[key])
        return stored.grad

    key = 'backbone.patch_embed.weight'
    expected[key] = pulled_back(
        key, lambda kernel: resample_patch_kernel(kernel, subnet.patch_size)
    )
    key, grid = 'backbone.pos_embed', (subnet.image_size // subnet.patch_size,) * 2
    expected[key] = pulled_back(key, lambda table: resize_position_table(table, grid))
    for key in TABLES:
        expected[key] = pulled_back(key, lambda table: table[:, : subnet.num_queries])
    for key, gradient in gradients.items():
        assert gradient is not None, f'{key} has no part in the loss'
        scale = float(expected[key].abs().max())
        torch.testing.assert_close(
            gradient, expected[key], rtol=1e-6, atol=1e-6 * scale, msg=key
        )


@pytest.mark.parametrize('triple', [(12, 6, 1), (24, 8, 1)])
def test_with_fewer_tokens_every_group_has_its_own_proposals(triple):
    """The official rule gives the first group proposals of the others in training."""
    tokens = (triple[0] // triple[1]) ** 2
    queries = min(6, tokens)
    model = factory.build_model(search_space=SPACE).train()
    set_subnet(model, Subnet(*triple, 2, queries))
    data = batch(triple[0])
    outputs = model(**data, mode='tensor')
    assert outputs['pred_logits'].shape[1] == 2 * queries
    group = model.eval()(**data, mode='tensor')
    # The first group trains what it detects with.
    for key in ('pred_logits', 'pred_boxes'):
        torch.testing.assert_close(outputs[key][:, :queries], group[key])
