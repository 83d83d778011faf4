"""Networks as graphs of other runtimes, and how far these are from the model."""

import numpy as np
import torch

from tests import golden, parity

ONNX = dict(dynamo=True, opset_version=20, input_names=['input'], verbose=False)
BATCH = {0: torch.export.Dim('batch')}
BOUNDS = dict(dets=5e-6, labels=1e-4, masks=1e-4)
"""Largest differences: of boxes, of logits, of masks as a part of the largest one."""
CLEAR = 2e-5
"""Encoder scores that are closer may be selected in another order by a runtime."""


def small_model(name):
    """A golden case, with weights from the rule; (model, (H, W))."""
    case = golden.CASES[name]
    model = parity.rule_model(parity.case_config(case), case['seed'])
    return model.eval(), case['batch_size']


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
    import openvino

    settings = dict(INFERENCE_PRECISION_HINT='f32', INFERENCE_NUM_THREADS=1)
    compiled = openvino.Core().compile_model(path, 'CPU', settings)
    return lambda images: list(compiled([images.numpy()]).values())


def differences(found, wanted):
    """How far outputs are apart, by name; masks as a part of the largest one."""
    apart = {}
    for output, (name, value) in zip(found, wanted.items(), strict=True):
        output, value = np.asarray(output), value.numpy()
        assert output.shape == value.shape
        scale = np.abs(value).max() if name == 'masks' else 1
        apart[name] = float(np.abs(output - value).max() / scale)
    return apart


def assert_same(call, model, images, counts=(1, 2, 5)):
    """Ask for batches of all sizes; returns the largest differences."""
    worst = {}
    for count in counts:
        with torch.no_grad():
            wanted = outputs_of(model, images[:count])
            found = call(images[:count])
        apart = differences(found, wanted)
        worst = {name: max(worst.get(name, 0), apart[name]) for name in apart}
    assert all(worst[name] <= BOUNDS[name] for name in worst), worst
    return worst
