"""The official package's side of the pose demo; needs ``rfdetr==1.11.2``, not mmdet.

``python -m tests.test_keypoints.official_figures FOLDER`` reads from the folder

- ``start.pth``: entries of the whole model by their official names;
- ``settings.json``: ``model``, official names of sizes, with ``vit`` as in
  :mod:`tests.official`; ``rates``, the learning rate of every step; ``decays``, those
  of the moving average; ``seed``, ``max_norm``, ``weight_decay`` and ``betas``;
- ``train.npz``: pictures (N, H, W, 3) RGB uint8 with ``boxes``, ``labels``, ``points``
  and their ``counts``; ``order`` (steps, B) of the pictures;
- ``val.npz``: likewise, and the ids of the images,

trains the official model with the official loss on these batches, and writes the terms
of the loss of each step, ``official.npz``, and after the steps that ``looks`` names
what its averaged weights detect, ``official_<step>.json`` with COCO results.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch

from tests import official

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def construct(sizes):
    """Model, criterion and postprocessing of these sizes, with keypoints."""
    from rfdetr import config
    from rfdetr._namespace import _namespace_from_configs
    from rfdetr.models import lwdetr

    arguments = _namespace_from_configs(
        config.RFDETRKeypointPreviewConfig(pretrain_weights=None, device='cpu'),
        config.KeypointTrainConfig(dataset_dir='.', output_dir='.'),
    )
    arguments.pretrain_weights = 'none'  # None would fetch weights
    for name, value in sizes.items():
        if name != 'vit':
            assert hasattr(arguments, name), name
            setattr(arguments, name, value)
    with official._shrunk_vit(sizes['vit']):
        model = lwdetr.build_model(arguments)
    return model, *lwdetr.build_criterion_and_postprocessors(arguments)


def normalised(pictures):
    """(B, H, W, 3) uint8 as the model takes them."""
    from rfdetr.utilities.tensors import NestedTensor

    levels = torch.from_numpy(pictures).float()
    levels = (levels - torch.tensor(MEAN)) / torch.tensor(STD)
    mask = torch.zeros(levels.shape[:3], dtype=torch.bool)
    return NestedTensor(levels.permute(0, 3, 1, 2).contiguous(), mask)


def target(data, starts, index):
    """The objects of a picture."""
    height, width = data['pictures'].shape[1:3]
    part = slice(starts[index], starts[index + 1])
    x, y, w, h = torch.from_numpy(data['boxes'][part]).unbind(1)
    boxes = torch.stack((x + w / 2, y + h / 2, w, h), 1)
    points = torch.from_numpy(data['points'][part]).float()
    return dict(
        boxes=(boxes / torch.tensor([width, height] * 2)).float(),
        labels=torch.from_numpy(data['labels'][part]),
        keypoints=points / torch.tensor([width, height, 1]),
    )


def train(folder, settings):
    """Train; the terms of each step."""
    torch.manual_seed(settings['seed'])
    model, criterion, postprocess = construct(settings['model'])
    start = torch.load(folder / 'start.pth', weights_only=True)
    left = model.load_state_dict(start, strict=False)
    assert not left.unexpected_keys, left.unexpected_keys
    # Parameters that are not used have no counterpart.
    unused = {name for name in left.missing_keys if not name.endswith('mask_token')}
    assert not unused & {name for name, _ in model.named_parameters()}, unused
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings['rates'][0],
        weight_decay=settings['weight_decay'],
        betas=settings['betas'],
        fused=True,
    )
    data = dict(np.load(folder / 'train.npz'))
    starts = np.concatenate(([0], np.cumsum(data['counts'])))
    average = copy.deepcopy(model)
    model.train()
    criterion.train()
    seen = []
    for step, rate in enumerate(settings['rates']):
        indices = data['order'][step]
        optimizer.param_groups[0]['lr'] = rate
        outputs = model(normalised(data['pictures'][indices]))
        targets = [target(data, starts, index) for index in indices]
        losses = criterion(outputs, targets)
        weights = criterion.weight_dict
        terms = {name: weights[name] * losses[name] for name in weights}
        optimizer.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings['max_norm'])
        optimizer.step()
        seen.append({name: value.item() for name, value in terms.items()})
        present, decay = model.state_dict(), settings['decays'][step]
        for name, value in average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(present[name], 1 - decay)
        if step + 1 in settings['looks']:
            results = detect(folder, average, postprocess)
            (folder / f'official_{step + 1}.json').write_text(json.dumps(results))
    return seen


@torch.no_grad()
def detect(folder, model, postprocess):
    """COCO results of the validation pictures."""
    model = copy.deepcopy(model).eval()
    data = dict(np.load(folder / 'val.npz'))
    height, width = data['pictures'].shape[1:3]
    results = []
    for start in range(0, len(data['pictures']), 8):
        pictures = data['pictures'][start : start + 8]
        outputs = model(normalised(pictures))
        sizes = torch.tensor([[height, width]] * len(pictures))
        for image, found in enumerate(postprocess(outputs, sizes), start):
            for label, score, box, points in zip(
                *(found[n].tolist() for n in ('labels', 'scores', 'boxes')),
                found['keypoints'].flatten(1).tolist(),
                strict=True,
            ):
                x, y, right, bottom = box
                results.append(
                    dict(
                        image_id=int(data['ids'][image]),
                        category_id=label + 1,
                        bbox=[x, y, right - x, bottom - y],
                        score=score,
                        keypoints=points,
                    )
                )
    return results


def main(folder):
    """Do it."""
    folder = Path(folder)
    settings = json.loads((folder / 'settings.json').read_text())
    seen = train(folder, settings)
    np.savez(
        folder / 'official.npz', **{n: np.array([s[n] for s in seen]) for n in seen[0]}
    )


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(sys.argv[1])
