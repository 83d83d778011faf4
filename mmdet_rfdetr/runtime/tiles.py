"""Evaluation in tiles: the normal test loop and metric, on whole pictures."""

import copy
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmdet.models.utils import samplelist_boxtype2tensor
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures import DetDataSample, SampleList
from mmengine.model import BaseTTAModel

from ..errors import SettingError
from .checkpoint import found_of, instances_of


@TRANSFORMS.register_module()
class RFDETRTiles(BaseTransform):
    """Cut a picture into overlapping tiles, for :class:`RFDETRTiledModel`.

    Args:
        transforms: what makes an input of a picture, from resizing to packing.
        tile: side of a tile in pixels.
        overlap: part of it that neighbours share at least.
        whole: look at the whole picture besides.

    Raises:
        SettingError: if the tiles make no sense.
    """

    def __init__(
        self,
        transforms: list[dict],
        tile: int,
        overlap: float = 0.2,
        whole: bool = False,
    ) -> None:
        if tile < 1 or not 0 <= overlap < 1:
            raise SettingError(
                f'{tile=} has to be 1 or more, {overlap=} from 0 to below 1'
            )
        self.transforms = Compose(transforms)
        self.tile, self.overlap, self.whole = tile, overlap, whole

    def transform(self, results: dict) -> dict:
        """Cut the picture, and make an input of each tile.

        Args:
            results: of a loader.

        Returns:
            ``inputs`` (T, 3, h, w) and ``data_samples``, one of the whole picture that
            holds ``regions`` (T, 4) and the T samples of the tiles as ``views``.
        """
        from rfdetr_runtime.tiles import grid

        image = results['img']
        height, width = image.shape[:2]
        regions = grid((height, width), self.tile, self.overlap)
        packed = self.transforms(dict(results))
        views = [packed]
        if len(regions) > 1:
            views = [packed] if self.whole else []
            about = {**results, 'instances': []}  # no objects are tested here
            for x, y, right, bottom in regions:
                part = np.ascontiguousarray(image[y:bottom, x:right])
                shape = part.shape[:2]
                of_tile = dict(about, img=part, img_shape=shape, ori_shape=shape)
                views.append(self.transforms(of_tile))
            if self.whole:
                regions = np.concatenate(([[0, 0, width, height]], regions))
        sample = copy.copy(packed['data_samples'])
        inputs = [each['inputs'] for each in views]
        if len({each.shape for each in inputs}) > 1:
            raise SettingError(
                'tiles need a test pipeline that resizes to one size: leave out '
                'keep_ratio=True, or --whole'
            )
        sample.set_metainfo(
            dict(regions=regions, views=[each['data_samples'] for each in views])
        )
        return dict(inputs=torch.stack(inputs), data_samples=sample)


@MODELS.register_module()
class RFDETRTiledModel(BaseTTAModel):
    """A detector that sees pictures in tiles, see :class:`RFDETRTiles`.

    Args:
        module: the detector, or its config.
    """

    def test_step(self, data: dict[str, Any]) -> SampleList:
        """Detect in the tiles of a batch and join what was found.

        As many tiles are computed at once as the loader gives pictures, so pictures of
        one tile are computed as without tiles.
        """
        wholes, size = data['data_samples'], len(data['data_samples'])
        # What a preprocessor does, which sees the tiles alone.
        samplelist_boxtype2tensor(wholes)
        views = [
            (view, sample)
            for inputs, whole in zip(data['inputs'], wholes, strict=True)
            for view, sample in zip(inputs, whole.views, strict=True)
        ]
        seen: SampleList = []
        for start in range(0, len(views), size):
            inputs, samples = map(list, zip(*views[start : start + size], strict=True))
            seen += self.module.test_step(dict(inputs=inputs, data_samples=samples))
        of_views = iter(seen)
        return self.merge_preds(
            [[whole, *(next(of_views) for _ in whole.views)] for whole in wholes]
        )

    def merge_preds(self, data_samples_list: list[SampleList]) -> SampleList:
        """Join what was found in the tiles of each picture.

        Args:
            data_samples_list: of each picture its own sample, then those of its tiles.

        Returns:
            The samples of the pictures, with all detections.
        """
        return [_joined(whole, seen) for whole, *seen in data_samples_list]


def _joined(whole: DetDataSample, seen: SampleList) -> DetDataSample:
    """The sample of a picture with the detections of its views."""
    from rfdetr_runtime.detector import moved
    from rfdetr_runtime.tiles import join_views

    if len(seen) == 1:
        whole.pred_instances = seen[0].pred_instances
        return whole
    size = whole.ori_shape[:2]
    found = [
        moved(found_of(each.pred_instances), region, size)
        for each, region in zip(seen, whole.regions, strict=True)
    ]
    whole.pred_instances = instances_of(join_views(found, whole.regions, size))
    return whole
