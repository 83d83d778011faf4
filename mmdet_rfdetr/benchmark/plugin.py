"""A config's side: what is measured, and in which phases."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData
from torch import nn

from ..errors import SettingError
from .checkpoint import checkpoint
from .clock import Clock
from .flops import count_flops
from .startup import startup

Work = Callable[[], None]
CLIP = 0.1


def build(args: SimpleNamespace, clock: Clock) -> tuple[Work, dict]:
    """Build a side.

    Args:
        args: its options, see :class:`.sides.Side`.
        clock: gets the phases.

    Returns:
        What does one sample of work, and facts about it.
    """
    cfg = Config.fromfile(args.target)
    cfg.merge_from_dict(args.cfg_options)
    init_default_scope('mmdet')
    if allocator := cfg.get('default_hooks', {}).get('allocator'):
        # It changes the process, for a run of this config and so for this.
        logger = MMLogger.get_current_instance()
        HOOKS.build(allocator).before_run(SimpleNamespace(logger=logger))
    return TASKS[args.task](cfg, args, clock)


def build_model(cfg: Config, args: SimpleNamespace) -> nn.Module:
    """The config's model with its checkpoint, under the precision asked for."""
    if args.dtype != 'config':
        device = torch.device(args.device).type
        cfg.model.precision = dict(device_type=device, dtype=args.dtype)
    model = MODELS.build(cfg.model)
    if args.checkpoint and has_weights(model):
        load_checkpoint(model, args.checkpoint)
    return model.to(args.device)


def has_weights(model: nn.Module) -> bool:
    """Whether there is anything to load; an exported file has its own."""
    return next(model.parameters(), None) is not None


def latency(cfg: Config, args: SimpleNamespace, clock: Clock) -> tuple[Work, dict]:
    """From image files to detections in their pixels, by the test pipeline."""
    model = build_model(cfg, args).eval()
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    files = itertools.cycle(map(str, sorted(Path(args.data).glob('*.jpg'))))

    def prepare() -> dict:
        infos = [
            dict(img_path=next(files), img_id=0, instances=[])
            for _ in range(args.batch_size)
        ]
        batch = pseudo_collate([pipeline(info) for info in infos])
        return model.data_preprocessor(batch, False)

    data = prepare()
    flops = count_flops(model, data['inputs'], data['data_samples'])
    if args.deploy and has_weights(model):
        if not hasattr(model, 'switch_to_deploy'):
            raise SettingError(
                f'--deploy: a {type(model).__name__} has no switch_to_deploy()'
            )
        model.switch_to_deploy(cuda_graphs=args.cuda_graphs)
    if has_weights(model):
        clock.watch(model.bbox_head, 'predict_by_feat', 'post-processing')

    def work() -> None:
        with torch.no_grad():
            with clock.phase('pre-processing'):
                data = prepare()
            with clock.phase('network'):  # Its last step is the post-processing.
                model(**data, mode='predict')

    parameters = sum(p.numel() for p in model.parameters())
    facts = dict(flops=flops // args.batch_size, parameters=parameters)
    return work, dict(facts, images=args.batch_size)


def training(cfg: Config, args: SimpleNamespace, clock: Clock) -> tuple[Work, dict]:
    """Steps on one batch in memory: fused AdamW, clipping, no data loading."""
    torch.manual_seed(0)
    model = build_model(cfg, args).train()
    size = cfg.image_size
    inputs = torch.randn(args.batch_size, 3, size, size, device=args.device)
    samples = [_target(size, args, cfg) for _ in range(args.batch_size)]
    model.data_preprocessor.batch_augments = None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    clock.watch(model.bbox_head, 'loss_by_feat', 'criterion')
    clock.watch(model.bbox_head.assigner, 'assign', 'matching')

    def work() -> None:
        with clock.phase('forward'):
            losses = model(inputs, samples, mode='loss')
            loss, _ = model.parse_losses(losses)
        with clock.phase('backward'):
            loss.backward()
        with clock.phase('update'):
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()

    return work, dict(images=args.batch_size)


def loader(cfg: Config, args: SimpleNamespace, clock: Clock) -> tuple[Work, dict]:
    """What one worker does to a training image: decode, augment, resize, pack."""
    annotations = Path(args.data, 'annotations.json')
    names = tuple(c['name'] for c in json.loads(annotations.read_text())['categories'])
    dataset = DATASETS.build(
        dict(
            cfg.train_dataloader.dataset,
            data_root='',
            ann_file=str(annotations),
            data_prefix=dict(img=args.data),
            metainfo=dict(classes=names),
        )
    )
    np.random.seed(0)
    turn = itertools.cycle(range(len(dataset)))

    def work() -> None:
        with clock.phase('image'):
            dataset[next(turn)]

    return work, dict(images=1)


def metric(cfg: Config, args: SimpleNamespace, clock: Clock) -> tuple[Work, dict]:
    """COCO evaluation of random detections by the config's evaluator."""
    annotations = Path(args.data, 'annotations.json')
    document = json.loads(annotations.read_text())
    evaluator = dict(cfg.val_evaluator, ann_file=str(annotations), metric='bbox')
    samples = list(_detections(document, args.detections))

    def work() -> None:
        built = METRICS.build(dict(evaluator))
        built.dataset_meta = dict(classes=[c['name'] for c in document['categories']])
        with clock.phase('evaluation'):
            built.process({}, samples)
            built.evaluate(len(samples))

    return work, dict(images=len(samples), detections=args.detections)


TASKS = dict(
    latency=latency,
    training=training,
    loader=loader,
    metric=metric,
    checkpoint=checkpoint,
    startup=startup,
)


def _target(size: int, args: SimpleNamespace, cfg: Config) -> DetDataSample:
    """An annotated image that fills the batch, with points if the model has some."""
    corners = torch.rand(args.boxes, 2) * 0.6 * size
    sides = (0.05 + 0.3 * torch.rand(args.boxes, 2)) * size
    labels = torch.randint(cfg.model.bbox_head.num_classes, (args.boxes,))
    sample = DetDataSample(
        metainfo=dict(img_shape=(size, size), batch_input_shape=(size, size))
    )
    boxes = torch.cat([corners, corners + sides], dim=1)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    if head := cfg.model.get('keypoint_head'):
        count = max(head.num_keypoints)
        places = corners[:, None] + torch.rand(args.boxes, count, 2) * sides[:, None]
        sample.gt_instances.keypoints = places
        sample.gt_instances.keypoints_visible = torch.full(places.shape[:2], 2)
    return sample.to(args.device)


def _detections(document: dict, count: int):
    """Data samples as a model returns them: jittered objects, and noise."""
    rng = np.random.default_rng(0)
    categories = [category['id'] for category in document['categories']]
    objects: dict[int, list] = {image['id']: [] for image in document['images']}
    for annotation in document['annotations']:
        objects[annotation['image_id']].append(annotation)
    for image in document['images']:
        own = objects[image['id']][:count]
        size = (image['width'], image['height'])
        corners = rng.random((count, 2)) * size
        sides = rng.random((count, 2)) * np.divide(size, 3)
        boxes = np.concatenate([corners, sides], axis=1)
        near = np.array([a['bbox'] for a in own]).reshape(-1, 4)
        boxes[: len(own)] = near + rng.normal(0, 4, near.shape)
        boxes[:, 2:] += boxes[:, :2]
        labels = rng.integers(len(document['categories']), size=count)
        labels[: len(own)] = [categories.index(a['category_id']) for a in own]
        yield dict(
            img_id=image['id'],
            ori_shape=size[::-1],
            pred_instances=dict(
                bboxes=torch.tensor(boxes, dtype=torch.float32),
                labels=torch.tensor(labels),
                scores=torch.tensor(rng.random(count), dtype=torch.float32),
            ),
        )
