"""From truth and detections to the page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rfdetr_predict.progress import Progress
from rfdetr_runtime.errors import SourceError

from .documents import index_found, index_truth
from .evaluation import Evaluation, Settings, evaluate
from .outcomes import confusion_matrix, find_outcomes
from .page import write_page


def write_report(
    folder: str | Path,
    document: dict,
    results: Sequence[dict],
    load: Callable[[dict], np.ndarray | None],
    *,
    kinds: Sequence[str] | None = None,
    settings: Settings | None = None,
    threshold: float | None = None,
    pictures: int = 24,
    title: str = 'Detections',
    facts: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> dict[str, Evaluation]:
    """Evaluate, and write ``index.html`` and the pictures that it shows.

    Args:
        folder: where to; it is made.
        document: COCO annotations; images that were not looked at do not belong in it.
        results: COCO results.
        load: gives the pixels (H, W, 3) BGR of an entry of ``images``, or None.
        kinds: of ``'bbox'`` and ``'segm'``; what all results have unless given. The
            last one says what is right.
        settings: how detections are counted; as COCO does unless given.
        threshold: least score in matrix and pictures; that of the best F1 unless given.
        pictures: how many are shown, those with the worst errors.
        title: of the page.
        facts: what else it says at its top, by name.
        quiet: whether no progress is told.

    Returns:
        The numbers of each kind.

    Raises:
        SourceError: if annotations or results cannot be used, or the folder cannot be
            written.
    """
    truth = index_truth(document)
    if not truth.imgs or not truth.cats:
        raise SourceError('the annotations list no images, or no categories')
    evaluations, found = {}, None
    for kind in kinds or kinds_of(results):
        if kind == 'segm':
            _require_masks(truth)
        found = index_found(truth, results, kind)
        progress = Progress(len(truth.cats), quiet, 'classes')
        evaluations[kind] = evaluate(
            truth, found, kind, settings or Settings(), progress.reach
        )
        progress.close()
    last = evaluations[kind]
    if threshold is None:
        threshold = last.best.threshold if last.best else 0.5
    outcomes = find_outcomes(truth, found, last, threshold)
    worst = [each for each in outcomes if each.mixed or each.false or each.missed]
    worst = sorted(worst, key=lambda each: -each.weight)[:pictures]
    try:
        write_page(
            Path(folder),
            evaluations,
            confusion_matrix(outcomes, len(truth.cats)),
            worst,
            load,
            threshold=threshold,
            title=title,
            facts={
                **(facts or {}),
                'Pictures': f'{len(truth.imgs):,}',
                'Objects': f'{sum(each.objects for each in last.classes):,}',
                'Detections': f'{len(found.anns):,}',
            },
        )
    except OSError as error:
        raise SourceError(f'{folder} cannot be written: {error}') from error
    return evaluations


def kinds_of(results: Sequence[dict]) -> tuple[str, ...]:
    """What all results have: boxes, masks or both; of no results, boxes."""
    keys = {'bbox': 'bbox', 'segm': 'segmentation'}
    have = [kind for kind, key in keys.items() if all(key in r for r in results)]
    return tuple(have) if results and have else ('bbox',)


def _require_masks(truth) -> None:
    without = [each for each in truth.anns.values() if 'segmentation' not in each]
    if without:
        raise SourceError(
            f'{len(without)} objects of the annotations have no mask to compare with: '
            'leave them out, or the masks of the results'
        )
