"""Ids of objects over time, by the ByteTrack of the package ``trackers``."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from rfdetr_runtime import Detections, Picture, SourceError

LOW_SCORE = 0.1
"""ByteTrack goes on with an object at scores as low as this; pass it as threshold."""


class Tracker:
    """Gives the objects of a video ids; each class has its own.

    Args:
        rate: frames a second.
        start: score from which an object that was not there before gets an id.
        keep: seconds after which an object that was not seen is forgotten.

    Raises:
        SourceError: the package is not installed.
    """

    def __init__(self, rate: float, start: float = 0.5, keep: float = 1.0) -> None:
        try:
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise SourceError(
                f'--track needs the package trackers ({error}): pip install '
                "'rfdetr-runtime[track]'"
            ) from error
        self._make = lambda: ByteTrackTracker(
            lost_track_buffer=round(30 * keep),  # counted at 30 frames a second
            frame_rate=rate,
            track_activation_threshold=start,
            high_conf_det_threshold=start,
        )
        self._trackers: dict[int, object] = {}
        self._ids: dict[tuple[int, int], int] = {}

    def update(self, found: Detections) -> Detections:
        """Give the objects of the next frame their ids.

        Args:
            found: detections from :data:`LOW_SCORE` on.

        Returns:
            Those that belong to an object, with ids from 1; -1 in the first frame in
            which an object is seen, since one frame may be a mistake.
        """
        for label in np.unique(found.labels).tolist():
            if label not in self._trackers:
                self._trackers[label] = self._make()
        ids = np.full(len(found), -1, np.int64)
        for label, tracker in self._trackers.items():
            places = np.flatnonzero(found.labels == label)
            detections = found.take(places).to_supervision()
            detections.mask = None
            detections.data = {'place': places}
            tracked = tracker.update(detections)
            for place, own in zip(
                tracked.data.get('place', ()), tracked.tracker_id, strict=True
            ):
                if own >= 0:
                    key = label, int(own)
                    ids[place] = self._ids.setdefault(key, len(self._ids) + 1)
        return replace(found, ids=ids)


def track(
    results: Iterable[tuple[Picture, Detections | None]], threshold: float
) -> Iterator[tuple[Picture, Detections | None]]:
    """Give the objects of all videos ids; each video begins anew.

    Args:
        results: of :meth:`~rfdetr_runtime.detector.Detector.stream`, with detections
            from :data:`LOW_SCORE` on.
        threshold: score from which an object is new, and below which detections that
            belong to none are left out.

    Yields:
        The pictures, with detections that have ids.
    """
    name, tracker = None, None
    for picture, found in results:
        if found is not None:
            if picture.frame is None:  # no video
                found = found.take(found.scores > threshold)
            else:
                if tracker is None or picture.name != name or picture.frame == 0:
                    name, tracker = picture.name, Tracker(picture.rate, threshold)
                found = tracker.update(found)
                found = found.take((found.ids >= 0) | (found.scores > threshold))
        yield picture, found
