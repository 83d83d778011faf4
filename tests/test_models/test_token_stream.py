"""Tokens of a task that run through the decoder beside its queries."""

import torch
from torch import nn

from mmdet_rfdetr.models.decoder import TokenStream
from mmdet_rfdetr.training.optim_constructor import part_of
from tests import parity

from .number_head import NumberHead, numbered_batch, with_numbers
from .small import small_config


class Pushing(TokenStream):
    """A number a query, which learns from the queries and moves them."""

    def __init__(self, maps, push):
        self.maps, self.push, self.seen = maps, push, []

    def start(self, query, query_pos, *, memory, reference_points):
        assert query.shape == query_pos.shape
        assert reference_points.shape[:2] == query.shape[:2]
        assert memory.tokens.shape[0] == len(self.maps[0])
        self.token = query.mean(-1)

    def after_layer(self, query):
        self.token = self.token + query.mean(-1)
        self.seen.append(self.token)
        return query + self.push * self.token[..., None]


class StreamHead(NumberHead):
    """The numbers of the stream; the detections come by descending number."""

    push = 0.0

    def __init__(self, **options):
        super().__init__(**options)
        self.decoder = nn.Linear(1, 1)

    def stream(self, maps):
        return Pushing(maps, self.push)

    def forward(self, stages, features):
        seen = features.streams[self.name].seen[-len(features.hidden_states) :]
        made = [self.decoder(token[..., None])[..., 0] for token in seen]
        if features.tokens is not None:
            made.append(features.tokens.mean(-1))
        return stages.with_task(self.name, made)

    def add_results(self, instances, made, image, queries, img_meta, *, rescale):
        instances.numbers = made[image, queries].float()
        instances.queries = queries
        return instances.numbers.argsort(descending=True)


class Follower(NumberHead):
    """A head that comes after and has to see the same queries."""

    name = 'follower_head'
    bbox_head_keys = ()

    def add_results(self, instances, made, image, queries, img_meta, *, rescale):
        instances.followed = queries


def build(push=0.0, **heads):
    config = with_numbers(small_config())
    config['number_head'] = dict(type=type('Head', (StreamHead,), dict(push=push)))
    return parity.rule_model(dict(config, **heads))


def batch():
    return numbered_batch((64, 64), (64, 48), counts=(2, 1), batch_size=(64, 64))


def test_the_stream_moves_the_queries_and_learns():
    images, samples = batch()
    plain = parity.rule_model(with_numbers(small_config())).eval()(images, samples)
    still, moved = (build(push).eval() for push in (0.0, 0.5))
    torch.testing.assert_close(
        still(images, samples)['pred_logits'], plain['pred_logits']
    )
    outputs = moved(images, samples)
    assert (outputs['pred_logits'] - plain['pred_logits']).abs().max() > 0.01
    assert (outputs['pred_numbers'] != outputs['aux_outputs'][0]['pred_numbers']).any()
    losses = moved.train()(images, samples, 'loss')
    losses['loss_number'].backward()
    assert moved.number_head.decoder.weight.grad.any()
    assert moved.decoder.layers[0].linear1.weight.grad.any()


def test_parameters_in_its_decoder_have_the_rate_of_the_decoder():
    parts = {name: part_of(name) for name, _ in build().named_parameters()}
    assert parts['number_head.decoder.weight'] == 'decoder'
    assert parts['number_head.fc.weight'] == 'everything else'


def test_another_order_of_detections():
    """All fields follow it, and so do the heads after it."""
    loss = dict(type='mmdet.L1Loss')
    model = build(follower_head=dict(type=Follower, loss_number=loss)).eval()
    images, samples = batch()
    with torch.no_grad():
        scores = model(images)['pred_logits'].sigmoid().amax(-1)
        (found, _) = model(images, samples, 'predict')
    instances = found.pred_instances
    assert instances.numbers.diff().max() <= 0 and instances.scores.diff().max() > 0
    assert instances.followed.equal(instances.queries)
    best = instances.scores.argmax()
    torch.testing.assert_close(
        instances.scores[best], scores[0, instances.queries[best]]
    )
