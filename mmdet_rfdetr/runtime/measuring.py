"""Average precision, with its error, of one model or of many at once."""

import contextlib
import copy
import io
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.runner import Runner
from rfdetr_family import runs
from rfdetr_family.matches import Matches
from rfdetr_family.ranking import standard_error
from torch import nn

from ..errors import SettingError
from ..evaluation import RFDETRCocoMetric

RECALLS = np.linspace(0, 1, 101)
"""At which COCO reads precision."""


def _innermost(dataset: dict) -> dict:
    """The config of a data set without what is wrapped around it."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


class Measurement:
    """A data set and the metric, for any number of models.

    Args:
        loader: config of the loader.
        evaluator: config of the metric, or of several, the first of which counts.
        images: take so many of them, None for all.

    Raises:
        SettingError: that is no ``RFDETRCocoMetric``.
    """

    def __init__(
        self, loader: dict, evaluator: dict | Sequence[dict], images: int | None = None
    ) -> None:
        self.loader = Runner.build_dataloader(copy.deepcopy(loader))
        self.images = len(self.loader.dataset)
        if images is not None and images < self.images:
            chosen = np.random.default_rng(0).permutation(self.images)[:images]
            loader = copy.deepcopy(loader)
            _innermost(loader['dataset'])['indices'] = sorted(chosen.tolist())
            self.loader, self.images = Runner.build_dataloader(loader), images
        cfg = evaluator[0] if isinstance(evaluator, Sequence) else evaluator
        changes = dict(metric='bbox', format_only=False, outfile_prefix=None)
        self._metric = METRICS.build({**cfg, **changes})
        if not isinstance(self._metric, RFDETRCocoMetric):
            raise SettingError(
                f'val_evaluator.type={cfg["type"]}: a search needs what '
                'RFDETRCocoMetric says of each image; set that'
            )
        self._metric.dataset_meta = self.loader.dataset.metainfo
        self._engine, self._metric.engine = self._metric.engine, self._watch

    def _watch(self, ground_truth, detections, iou_type: str):
        thresholds, limit = self._metric.iou_thrs, self._metric.limit
        matches = Matches.of(ground_truth, detections, thresholds, limit)
        self._replicates = matches.jackknife(RECALLS)
        return self._engine(ground_truth, detections, iou_type)

    @classmethod
    def of_annotations(
        cls, cfg: Config, annotations: str, images: str | None
    ) -> 'Measurement':
        """Measure on other annotations than those of ``test_dataloader``.

        Args:
            cfg: whole config.
            annotations: file in COCO's format.
            images: folder of its images, None for that of ``test_dataloader``.
        """
        loader = copy.deepcopy(cfg.test_dataloader)
        dataset = _innermost(loader['dataset'])
        prefix = (dataset.get('data_prefix') or {}).get('img') or ''
        folder = images or Path(dataset.get('data_root') or '', prefix)
        annotations = str(Path(annotations).absolute())
        prefix = dict(img=str(Path(folder).absolute()))
        dataset.update(ann_file=annotations, data_prefix=prefix)
        given = cfg.test_evaluator
        evaluator = given[0] if isinstance(given, Sequence) else given
        return cls(loader, {**evaluator, 'ann_file': annotations})

    def run(
        self,
        keys: Iterable[Hashable],
        detect: Callable[[dict], Iterable[tuple[Hashable, list]]],
        step: Callable[[int], None] = lambda images: None,
    ) -> dict[Hashable, dict]:
        """Detect in all images, and evaluate.

        Args:
            keys: of the models.
            detect: gives a model and its detections in a batch, for all of them.
            step: told how many more images were seen.

        Returns:
            Of each: ``bbox_mAP`` as the metric has it, its ``standard_error``, the
            ``replicates`` that this is from, and the number of ``images``.
        """
        kept: dict[Hashable, list] = {key: [] for key in keys}
        for batch in self.loader:
            for key, samples in detect(batch):
                self._metric.results = kept[key]
                self._metric.process(batch, [each.to_dict() for each in samples])
            step(len(batch['data_samples']))
        return {key: self._evaluate(kept.pop(key)) for key in list(kept)}

    def _evaluate(self, results: list) -> dict:
        self._metric.results, self._replicates = results, [0.0, 0.0]
        with contextlib.redirect_stdout(io.StringIO()):
            found = self._metric.evaluate(len(results))
        return dict(
            bbox_mAP=found.get(f'{self._metric.prefix}/bbox_mAP', 0.0),
            standard_error=standard_error(self._replicates),
            images=self.images,
            replicates=self._replicates,
        )

    def run_model(self, model: nn.Module) -> dict:
        """:meth:`run` for an ordinary model."""
        test = torch.no_grad()(lambda batch: [('model', model.test_step(batch))])
        return self.run(['model'], test)['model']

    def digests(self) -> dict[str, str]:
        """Path of each image file by a digest of what it holds."""
        dataset = self.loader.dataset
        infos = map(dataset.get_data_info, range(len(dataset)))
        return runs.digests(info['img_path'] for info in infos)
