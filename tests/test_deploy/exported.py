"""Networks as graphs of other runtimes, and how far these are from the model."""

import math

import numpy as np
import torch
from rfdetr_runtime.backends import openvino_core

from mmdet_rfdetr.models.memory import Memory
from mmdet_rfdetr.models.query_selection import proposals_of
from tests import golden, golden_rule, parity

ONNX = dict(dynamo=True, opset_version=20, input_names=['input'], verbose=False)
BATCH = {0: torch.export.Dim('batch')}
BOUNDS = dict(dets=5e-6, labels=1e-4, masks=1e-4, order=1e-5)
"""Largest differences: of boxes, of logits, of masks as a part of the largest one, and
of the scores of two pairs of query and class that change places among the best."""
BEST = 300
CLEAR_LOGITS = 1e-5
CLEAR = 2e-5
"""Encoder scores that are closer may be selected in another order by a runtime."""


def small_model(name):
    """A golden case, with weights from the rule; (model, (H, W))."""
    case = golden.CASES[name]
    model = parity.rule_model(parity.case_config(case), case['seed'])
    return model.eval(), case['batch_size']


def weight(name, shape, seed=1):
    """Float32 value of an entry of the official state dict, as scaled as trained ones.

    The golden rule draws layer scales around 1, with which tokens grow from block to
    block, and boxes that are moved by several times their size, which say where is
    sampled: such a model makes much of rounding errors, in eager mode as well.
    """
    noise = math.sqrt(3) * golden_rule.numbers(name, seed, shape)
    last = name.rpartition('.')[2]
    if 'class_embed' in name:
        centre, spread = (-4.6, 0.3) if last == 'bias' else (0, 2 / shape[-1] ** 0.5)
    elif last == 'lambda1':
        centre, spread = 0.5, 0.1
    elif last == 'weight' and len(shape) == 1:
        centre, spread = 1, 0.1
    elif name.endswith('sampling_offsets.bias'):
        centre, spread = 0, 1.5
    elif last in ('position_embeddings', 'cls_token', 'mask_token', 'register_tokens'):
        centre, spread = 0, 0.4
    elif len(shape) == 1 or name == 'refpoint_embed.weight':
        centre, spread = 0, 0.1
    elif name == 'query_feat.weight':
        centre, spread = 0, 0.5
    else:
        centre, spread = 0, math.prod(shape[1:]) ** -0.5
        if 'bbox_embed' in name and name.endswith('.layers.2.weight'):
            spread /= 2
    return (centre + spread * noise).astype(np.float32)


class Plain(torch.nn.Module):
    """A model as somebody exports it who knows nothing of deployment files."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        """Images to the outputs of the last layer."""
        return tuple(outputs_of(self.model, images).values())


def outputs_of(model, images):
    """Outputs of a model by their names in a deployment file."""
    found = model(images, mode='tensor')
    names = dict(dets='pred_boxes', labels='pred_logits', masks='pred_masks')
    return {name: found[key] for name, key in names.items() if key in found}


@torch.no_grad()
def clear_images(model, size, count, seed=0):
    """So many images (H, W) whose selected tokens no rounding can put in another order.

    Which query a token feeds depends on the order of scores, so two tokens that
    change places change everything that comes after.
    """
    found = []
    while len(found) < count:
        image = parity.rule_batch([size], seed=seed)[0]
        seed += 1
        logits = model(image, mode='tensor')['enc_outputs']['pred_logits']
        best = logits[0].amax(-1)
        if (best[:-1] - best[1:]).min() > CLEAR:
            found.append(image)
        assert seed < 20 * count, 'no image has clear scores'
    return torch.cat(found)


@torch.no_grad()
def clear_scores(model, images):
    """Draw class weights until the tokens are in order whatever the rounding.

    As :func:`clear_images` does it for few tokens; of hundreds, hardly an image has no
    two whose scores are close.
    """
    memory = Memory.flatten(model.neck(model.backbone(images)), None)
    tokens, selection = memory.tokens, model.query_selection
    if (valid := proposals_of(memory)[1]) is not None:
        tokens = tokens.masked_fill(~valid[..., None], 0)
    rows = selection.norm(selection.fc(tokens.view(1, -1, tokens.shape[-1])))
    drawn = selection.fc_cls.weight
    for seed in range(2000):
        new = weight('class_embed', drawn.shape[1:], seed)
        drawn[0] = torch.from_numpy(new)
        best = selection.fc_cls(rows).view(*tokens.shape[:2], -1).amax(-1)
        best = best.sort(descending=True).values[:, : model.num_queries + 1]
        if best.diff().max() < -CLEAR_LOGITS:
            return
    raise AssertionError('no weights have clear scores')


def to_onnx(network, images, folder, *, dynamic=True, **options):
    """Write an ONNX file of a network; its path."""
    settings = {**ONNX, **options}
    if dynamic:
        settings['dynamic_shapes'] = (BATCH,)
    names = getattr(network, 'output_names', None)
    path = folder / 'network.onnx'
    torch.onnx.export(network, (images,), path, output_names=names, **settings)
    return path


def in_onnxruntime(path):
    """A file as a function of images."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path, options, providers=['CPUExecutionProvider']
    )
    return lambda images: session.run(None, {'input': images.numpy()})


def in_openvino(path):
    """A file as a function of images, in float32."""
    settings = dict(INFERENCE_PRECISION_HINT='f32', INFERENCE_NUM_THREADS=1)
    compiled = openvino_core().compile_model(path, 'CPU', settings)
    return lambda images: list(compiled([images.numpy()]).values())


def differences(found, wanted):
    """How far outputs are apart, by name; masks as a part of the largest one."""
    apart = {}
    for output, (name, value) in zip(found, wanted.items(), strict=True):
        output, value = np.asarray(output), value.numpy()
        assert output.shape == value.shape
        scale = np.abs(value).max() if name == 'masks' else 1
        apart[name] = float(np.abs(output - value).max() / scale)
        if name == 'labels':
            apart['order'] = max(map(_disorder, output, value))
    return apart


def _disorder(found, wanted):
    """Largest difference of scores of pairs at the same place, of an image (Q, K)."""
    scores = 1 / (1 + np.exp(-wanted.astype(np.float64).flatten()))
    theirs, ours = (np.argsort(-x.flatten(), kind='stable') for x in (found, wanted))
    return float(np.abs(scores[theirs] - scores[ours])[:BEST].max())


def assert_same(call, model, images, counts=(1, 2, 5)):
    """Ask for batches of all sizes; returns the largest differences."""
    worst = {}
    for count in counts:
        with torch.no_grad():
            wanted = outputs_of(model, images[:count])
            found = call(images[:count])
        _keep_worst(worst, differences(found, wanted))
    return assert_within(worst)


def assert_same_as(call, wanted, images, counts):
    """As :func:`assert_same`, with the outputs of a model for all images."""
    worst = {}
    for count in counts:
        part = {name: value[:count] for name, value in wanted.items()}
        _keep_worst(worst, differences(call(images[:count]), part))
    return assert_within(worst)


def _keep_worst(worst, apart):
    worst.update({name: max(worst.get(name, 0), apart[name]) for name in apart})


def assert_within(worst):
    """Fail where a difference is larger than it may be; returns the differences."""
    assert all(worst[name] <= BOUNDS[name] for name in worst), worst
    return worst
