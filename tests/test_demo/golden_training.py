"""Twenty steps of the demo model from a fixed seed, and what they came to.

``tests/data/golden_training.json`` holds the numbers, ``tools/make_golden_training.py``
renews them, and ``CONTRIBUTING.md`` says when that is allowed.
"""

import json
import platform
from contextlib import suppress
from hashlib import sha256

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from mmdet_rfdetr.demo.drawing import draw_picture
from mmdet_rfdetr.ops.boxes import paired_iou
from tests.fixtures import REPOSITORY

FILE = REPOSITORY / 'tests' / 'data' / 'golden_training.json'
STEPS = 20
PICTURES = 4
BATCH = 2
SIDE = 128
# Without a warm-up the demo's own rate lets differences of rounding grow fast.
LEARNING_RATE = 1.5e-4
PRECISIONS = {
    'float32': None,
    'bfloat16': dict(device_type='cpu', dtype='bfloat16'),
}
LOGGED = ('loss', 'loss_cls', 'loss_bbox', 'loss_iou', 'enc_loss_cls', 'grad_norm')


def machine():
    """What the last bits depend on: the libraries, and the kernels they choose."""
    details = {'vendor_id', 'cpu family', 'model', 'stepping', 'flags'}
    cpu = {platform.machine()}
    with suppress(OSError), open('/proc/cpuinfo') as lines:  # Linux
        cpu |= {line for line in lines if line.split(':')[0].strip() in details}
    return dict(
        torch=torch.__version__,
        instructions=torch.backends.cpu.get_cpu_capability(),
        cpu=sha256(''.join(sorted(cpu)).encode()).hexdigest()[:16],
    )


def batch(numbers):
    """Pictures of the demo, as the data loader gives them."""
    images, samples = [], []
    for number in numbers:
        picture, boxes, labels = draw_picture(0, 0, number, SIDE)
        images.append(torch.from_numpy(picture).permute(2, 0, 1))
        boxes = torch.from_numpy(boxes).float()
        sample = DetDataSample(
            metainfo=dict(img_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1),
            labels=torch.from_numpy(labels).long(),
        )
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def build(cfg):
    """The model of a config, ready to train, and its optimizer wrapper."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    return model.train(), wrapper


def train(precision):
    """Train for twenty steps.

    Args:
        precision: ``'float32'`` or ``'bfloat16'``.

    Returns:
        ``losses``: for each name in ``LOGGED`` one number a step; ``metrics`` of the
        detections in the pictures afterwards.
    """
    torch.set_num_threads(1)
    cfg = Config.fromfile(REPOSITORY / 'configs' / 'rfdetr_demo.py')
    cfg.model.precision = PRECISIONS[precision]
    cfg.optim_wrapper.optimizer.lr = LEARNING_RATE
    model, wrapper = build(cfg)
    losses = {name: [] for name in LOGGED}
    for step in range(STEPS):
        first = BATCH * step % PICTURES
        terms = model.train_step(batch(range(first, first + BATCH)), wrapper)
        hub = wrapper.message_hub
        terms = dict(terms, grad_norm=hub.get_scalar('train/grad_norm').current())
        for name in LOGGED:
            losses[name].append(float(torch.as_tensor(terms[name]).detach()))
    return dict(losses=losses, metrics=evaluate(model.eval()))


@torch.no_grad()
def evaluate(model):
    """How well the best of an image's detections fit its objects."""
    data = batch(range(PICTURES))
    overlaps, scores = [], []
    for truth, found in zip(data['data_samples'], model.val_step(data), strict=True):
        true, ours = truth.gt_instances.bboxes, found.pred_instances.bboxes.float()
        iou = paired_iou(
            true[:, None].expand(-1, len(ours), -1), ours.expand(len(true), -1, -1)
        )
        overlaps.append(iou.max(1).values)
        scores.append(found.pred_instances.scores[: len(true)])
    return dict(
        mean_best_iou=float(torch.cat(overlaps).mean()),
        mean_top_score=float(torch.cat(scores).mean()),
    )


def distance(one, other):
    """Largest relative difference of each series of losses."""
    return {
        name: max(
            abs(a - b) / abs(a)
            for a, b in zip(one['losses'][name], other['losses'][name], strict=True)
        )
        for name in LOGGED
    }


def load():
    """The numbers in the repository."""
    return json.loads(FILE.read_text())


def save(results):
    """Write the numbers, and where they were computed."""
    content = dict(machine=machine(), results=results)
    # Shortest texts that give the same number again.
    FILE.write_text(json.dumps(content, indent=1) + '\n')
