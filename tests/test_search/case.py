"""A small super-net with pictures in which it finds something."""

import argparse
import json

import numpy as np
import torch
from mmengine.runner import Runner

from mmdet_rfdetr.search import SearchSpace
from tests import factory
from tests.runs import forget_runs

SPACE = dict(
    image_sizes=[24, 32],
    patch_sizes=[3, 4],
    num_windows=[1, 2],
    num_layers=[0, 1, 2],
    num_queries=[3, 6],
)


def config_of(folder, pictures, **changes):
    """Config of a super-net that is evaluated on the pictures of a folder."""
    options = {
        'model': dict(search_space=SPACE),
        'test_dataloader.batch_size': 3,
        'val_dataloader.batch_size': 3,
        **changes,
    }
    return factory.project_config(pictures, folder / 'runs', **options)


def write_pictures(folder, count, seed, size=(40, 48)):
    """Pictures with objects at random; those of another size are others."""
    factory.write_coco(folder, [2] * count, size, seed=seed, turned=True)


def write_case(folder, count=10, seed=1):
    """Write pictures, a config and a checkpoint.

    The objects of the pictures are detections of the home model, moved a little, so
    that precisions are no zeros.

    Returns:
        Path of the config, and of the checkpoint.
    """
    forget_runs()
    pictures = folder / 'pictures'
    write_pictures(pictures, count, seed)
    cfg = config_of(folder, pictures)
    model = factory.build_model()
    checkpoint = folder / 'epoch_2.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    see_objects(cfg, checkpoint, pictures)
    config = folder / 'super.py'
    cfg.dump(config)
    return str(config), str(checkpoint)


def see_objects(cfg, checkpoint, pictures, seed=0):
    """Make what the home model finds the objects of the pictures."""
    model = factory.build_model().eval()
    file = pictures / 'annotations.json'
    document = json.loads(file.read_text())
    keys = [each['id'] for each in document['categories']]
    rng, document['annotations'] = np.random.default_rng(seed), []
    for batch in Runner.build_dataloader(cfg.test_dataloader):
        with torch.no_grad():
            samples = model.test_step(batch)
        for sample in samples:
            found = sample.pred_instances
            for place in rng.permutation(len(found))[:4]:
                box = found.bboxes[place].numpy()
                side = (box[2:] - box[:2]).min()
                x, y, right, bottom = map(float, box + rng.normal(0, side / 20, 4))
                if min(right - x, bottom - y) > 1:
                    entry = dict(
                        id=len(document['annotations']) + 1,
                        image_id=sample.img_id,
                        category_id=keys[int(found.labels[place])],
                        bbox=[x, y, right - x, bottom - y],
                        area=(right - x) * (bottom - y),
                        iscrowd=0,
                    )
                    document['annotations'].append(entry)
    file.write_text(json.dumps(document))


def subnets(space=None):
    """All sub-nets of the space."""
    return [*SearchSpace(**(space or SPACE)).subnets()]


def options(work_dir, checkpoint, **changes):
    """What ``tools/search.py`` parses."""
    usual = dict(
        work_dir=str(work_dir),
        checkpoint=checkpoint,
        device='cpu',
        clock='cpu',
        threads=1,
        pause=0.0,
        rounds=1,
        images=None,
        holdout=None,
        holdout_images=None,
        baseline=None,
        earlier=None,
        budget_ms=None,
        processes=1,
    )
    return argparse.Namespace(**usual | changes)
