"""The official package's side; run by its own Python, which has no MMDetection.

Measures rfdetr 1.11.2 as its own code goes: ``predict``'s steps, a training step of
network, criterion, clipping and fused AdamW, and the transforms of its COCO training on
its own decoder.
"""

import itertools
import json
import logging
import warnings
from pathlib import Path

import torch

# A script's own folder is searched for modules.
from clock import Clock
from worker import serve

CLIP = 0.1


def build(args, clock: Clock) -> tuple:
    """Build a side; see ``plugin.build``. The target is a class like RFDETRNano."""
    import rfdetr

    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    if not hasattr(rfdetr, args.target):
        raise ValueError(f'the official package has no model {args.target}')
    if args.task == 'loader':
        return loader(rfdetr, args, clock)
    settings = dict(pretrain_weights=args.checkpoint or None, device=args.device)
    model = getattr(rfdetr, args.target)(**settings)
    return dict(latency=latency, training=training)[args.task](model, args, clock)


def autocast(args):
    """The precision asked for, around the network."""
    low = args.dtype not in ('config', 'float32')
    dtype = getattr(torch, args.dtype) if low else None
    return torch.autocast(torch.device(args.device).type, dtype, enabled=low)


def latency(model, args, clock):
    """From image files to detections in their pixels."""
    import torchvision.transforms.functional as F
    from PIL import Image

    network = model.model.model.to(args.device).eval()
    post = model.model.postprocess
    size = model.model.resolution
    files = itertools.cycle(sorted(Path(args.data).glob('*.jpg')))

    def prepare():
        batch, sizes = [], []
        for _ in range(args.batch_size):
            image = Image.open(next(files), formats=['JPEG']).convert('RGB')
            sizes.append(image.size[::-1])
            tensor = F.to_tensor(image).to(args.device)
            tensor = F.resize(tensor, [size, size])
            batch.append(F.normalize(tensor, model.means, model.stds))
        return torch.stack(batch), torch.tensor(sizes, device=args.device)

    def work():
        with torch.inference_mode():
            with clock.phase('pre-processing'):
                inputs, sizes = prepare()
            with clock.phase('network'), autocast(args):
                outputs = network(inputs)
            with clock.phase('post-processing'):
                post(outputs, target_sizes=sizes)

    parameters = sum(p.numel() for p in network.parameters())
    return work, dict(parameters=parameters, images=args.batch_size)


def training(model, args, clock):
    """Steps on one batch in memory."""
    from rfdetr.config import TrainConfig
    from rfdetr.models.lwdetr import build_criterion_from_config
    from rfdetr.utilities.tensors import NestedTensor

    torch.manual_seed(0)
    config = TrainConfig(dataset_dir='.', output_dir='.', multi_scale=False)
    if args.official_compile:
        network, criterion = _compiled(model.model_config, config)
    else:
        network = model.model.model
        criterion, _ = build_criterion_from_config(model.model_config, config)
    network.to(args.device).train()
    criterion.to(args.device).train()
    size = model.model.resolution
    images = torch.randn(args.batch_size, 3, size, size, device=args.device)
    padding = torch.zeros(args.batch_size, size, size, dtype=bool, device=args.device)
    points = model.model_config.num_keypoints_per_class
    targets = [_target(args, points) for _ in range(args.batch_size)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    # Either all layers at once or, if that declines, one after the other.
    for method in ('forward', '_match_many'):
        clock.watch(criterion.matcher, method, 'matching')

    def work():
        if args.official_compile:
            torch.compiler.cudagraph_mark_step_begin()
        with clock.phase('forward'), autocast(args):
            outputs = network(NestedTensor(images, padding), targets)
        with clock.phase('criterion'), autocast(args):
            losses = criterion(outputs, targets)
            weights = criterion.weight_dict
            loss = sum(losses[key] * weights[key] for key in losses if key in weights)
        with clock.phase('backward'):
            loss.backward()
        with clock.phase('update'):
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()

    return work, dict(images=args.batch_size)


def _compiled(model_config, train_config):
    """Network and criterion as the package's own training prepares them for a GPU.

    That is ``torch.compile`` for all sizes with CUDA graphs, and a compiled distance of
    boxes in the matching.
    """
    from rfdetr.training.module_model import RFDETRModelModule

    switches = dict(compile=True, cuda_graphs=True)
    module = RFDETRModelModule(model_config.model_copy(update=switches), train_config)
    return module.model, module.criterion


def loader(rfdetr, args, clock):
    """What one worker does to a training image, at the package's defaults."""
    from rfdetr.datasets import coco
    from rfdetr.datasets.io_utils import decode_pil_image

    settings = getattr(rfdetr.config, args.target + 'Config')()
    scales = dict(
        multi_scale=True,
        expanded_scales=True,
        patch_size=settings.patch_size,
        num_windows=settings.num_windows,
    )
    transforms = coco.make_coco_transforms_square_div_64(
        image_set='train', resolution=settings.resolution, **scales
    )
    draft = coco.draft_size_for_transforms(
        'train', settings.resolution, scale_jitter=True, **scales
    )
    document = json.loads(Path(args.data, 'annotations.json').read_text())
    boxes = {image['id']: [] for image in document['images']}
    for annotation in document['annotations']:
        x, y, width, height = annotation['bbox']
        boxes[annotation['image_id']].append([x, y, x + width, y + height])
    torch.manual_seed(0)
    infos = itertools.cycle(document['images'])

    def work():
        info = next(infos)
        with clock.phase('image'):
            path = Path(args.data, info['file_name'])
            image, scale = decode_pil_image(path, draft_size=draft)
            own = torch.tensor(boxes[info['id']]).reshape(-1, 4)
            size = torch.tensor(image.size[::-1])
            target = dict(
                boxes=own * torch.tensor(scale * 2),
                labels=torch.ones(len(own), dtype=torch.long),
                area=torch.ones(len(own)),
                iscrowd=torch.zeros(len(own)),
                image_id=torch.tensor([info['id']]),
                orig_size=size,
                size=size,
            )
            transforms(image, target)

    return work, dict(images=1)


def _target(args, points):
    """Boxes of one image, cxcywh of its size, and points of the class that has some."""
    boxes = torch.rand(args.boxes, 4) * 0.3 + 0.05
    boxes[:, :2] += 0.3
    labels = torch.randint(1, 80, (args.boxes,))
    target = dict(boxes=boxes, labels=labels)
    if points:
        target['labels'] = labels * 0
        places = torch.rand(args.boxes, points[0], 2) - 0.5
        places = boxes[:, None, :2] + places * boxes[:, None, 2:]
        seen = torch.full_like(places[..., :1], 2)
        target['keypoints'] = torch.cat((places, seen), dim=-1)
    return {name: value.to(args.device) for name, value in target.items()}


if __name__ == '__main__':
    serve(build, Clock)
