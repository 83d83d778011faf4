"""A small model with its data, and files exported from it, each of them once."""

import contextlib
import functools
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from filelock import FileLock
from mmdet.structures import DetDataSample
from PIL import Image
from rfdetr_runtime import Metadata, prepare

from mmdet_rfdetr.deploy import exporting
from mmdet_rfdetr.deploy.settings import Options
from tests.factory import (
    CLASSES,
    SIDE,
    build_model,
    edit,
    model_config,
    project_config,
    write_coco,
)

SUFFIXES = dict(onnx='.onnx', openvino='.xml', pt2='.pt2')


class Project:
    """Pictures, a config and a checkpoint in a folder.

    Args:
        folder: a pathlib.Path.
        shared: folder for the graphs, which take seconds to make; of all processes that
            test the same model.
        **changes: of the model, by dotted name.
    """

    metadata = Metadata(
        names=CLASSES,
        input_size=(SIDE, SIDE),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    )

    def __init__(self, folder, shared, **changes):
        self.folder = folder
        self.shared = shared
        self.data = write_coco(folder / 'data', [2, 3, 1, 2, 4], turned=True)
        self.changes = {'neck.scales': ('P4',), **changes}
        self.model = build_model(**self.changes).eval()
        spread(self.model)
        self.look_for_what_is_found()
        self.checkpoint = str(folder / 'weights.pth')
        torch.save(self.model.state_dict(), self.checkpoint)
        self.exported = functools.cache(self._exported)

    def look_for_what_is_found(self):
        """Make the best detections of the model the objects of the pictures."""

        def change(document):
            document['annotations'] = annotations = []
            for image in document['images']:
                pixels = np.asarray(Image.open(self.data / image['file_name']))
                (found,) = self.detect([pixels[..., ::-1]])
                for box, label in zip(found.bboxes[:3], found.labels, strict=False):
                    x, y, right, bottom = map(float, box)
                    size = [right - x, bottom - y]
                    annotations.append(
                        dict(
                            id=len(annotations) + 1,
                            image_id=image['id'],
                            category_id=int(label) + 1,
                            bbox=[x, y, *size],
                            area=size[0] * size[1],
                            iscrowd=0,
                        )
                    )

        edit(self.data, change)

    def detect(self, images):
        """What ``predict`` says of images (H, W, 3) in BGR, in their pixels."""
        samples = []
        for image in images:
            height, width = image.shape[:2]
            scale = SIDE / width, SIDE / height
            meta = dict(img_shape=(SIDE, SIDE), ori_shape=(height, width))
            samples.append(DetDataSample(metainfo=dict(meta, scale_factor=scale)))
        inputs = torch.from_numpy(prepare(images, self.metadata))
        with torch.no_grad():
            found = self.model.predict(inputs, samples)
        return [sample.pred_instances for sample in found]

    def config(self, **changes):
        config = project_config(self.data, self.folder / 'run')
        config.model = model_config(**self.changes)
        config.merge_from_dict(changes)
        return config

    def export(self, name, say=lambda line: None, **options):
        """Export anew; returns the path of the file and the rows of the check."""
        options = Options(**options)
        path = Path(self.folder, name + SUFFIXES[options.to])
        names = dict(config_name='mine.py', say=say)
        with graphs_made_once(self.shared):
            rows = exporting.export(
                self.config(), self.checkpoint, path, options, **names
            )
        return path, dict(rows)

    def _exported(self, **options):
        name = '-'.join(str(value) for value in options.values()).replace(' ', '')
        return self.export(name or 'plain', **options)


@contextlib.contextmanager
def graphs_made_once(folder):
    """Keep the plain ONNX file of a layout and shape, for those that begin with it."""
    write = exporting.write_onnx

    def write_once(module, example, path, strings):
        shape = 'x'.join(map(str, example.shape))
        kept = folder / f'{strings["layout"]}-{strings["dynamic"]}-{shape}.onnx'
        with FileLock(f'{kept}.lock'):
            if not kept.exists():
                write(module, example, path, strings)
                shutil.copyfile(path, kept)
                return
        model = onnx.load(kept)
        onnx.helper.set_model_props(model, dict(strings))
        onnx.save(model, path)

    exporting.write_onnx = write_once
    try:
        yield
    finally:
        exporting.write_onnx = write


def spread(model):
    """Give queries and classes scores that are far from one another."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in (model.bbox_head.fc_cls, model.query_selection.fc_cls):
            layer.weight.copy_(2 * torch.randn(layer.weight.shape, generator=generator))
        for layer in model.bbox_head.fc_reg:
            layer.weight.add_(
                0.2 * torch.randn(layer.weight.shape, generator=generator)
            )
