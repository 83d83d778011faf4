"""What a search will take, in words."""

from typing import NamedTuple


class Plan(NamedTuple):
    """Numbers of a search that has not begun.

    Attributes:
        subnets: how many there are.
        tokens: of each trunk, a size with patches and windows; ascending.
        shared: operations of an image for all of them.
        separate: likewise, if each ran alone.
        rate: operations a second.
        device_bytes: of a process, for weights and a batch.
        host_bytes: of a process, for the detections of a trunk.
        images: that are seen first.
        all_images: of the set.
        processes: that share the work.
        latencies: seconds that these take.
    """

    subnets: int
    tokens: list[int]
    shared: int
    separate: int
    rate: float
    device_bytes: int
    host_bytes: int
    images: int
    all_images: int
    processes: int
    latencies: float

    def describe(self) -> str:
        """Some lines."""
        tokens, seconds = self.tokens, self.shared * self.images / self.rate
        lines = [
            f'{self.subnets} sub-nets of {len(tokens)} sizes, patches and windows',
            f'tokens: {tokens[0]} to {tokens[-1]}, half of them up to '
            f'{tokens[len(tokens) // 2]}',
            f'operations of an image: {self.shared / 1e9:.4g} G shared; '
            f'{self.separate / 1e9:.4g} G if each sub-net ran alone, '
            f'{self.separate / self.shared:.1f} times as many',
            f'memory of each of {self.processes} processes: about '
            f'{self.device_bytes / 1e6:.0f} MB on the device, and up to '
            f'{self.host_bytes / 1e6:.0f} MB of detections on the host',
            f'time: about {span(seconds / self.processes)} for detections in '
            f'{self.images} images at {self.rate / 1e9:.3g} G operations a second, '
            f'evaluating them besides, and {span(self.latencies)} for latencies',
        ]
        if self.images < self.all_images:
            more = f'those that may be of the front in all {self.all_images} images'
            lines.append(f'and then {more}')
        return '\n'.join(lines)


def span(seconds: float) -> str:
    """As ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'
