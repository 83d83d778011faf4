"""What is wrong or unusual in a data set, counted and reported in one table."""

import reprlib
from collections import Counter, defaultdict
from enum import Enum
from typing import Any

from ..errors import BadImageError

_EXAMPLES = 2
_EXAMPLE_LENGTH = 200


class Finding(Enum):
    """Things found in a data set: what it is, what is done about it.

    Notes are no faults; they never stop a run.
    """

    IMAGE_BROKEN = 'image entry without id or file name', 'left out'
    IMAGE_TWICE = 'different images with the same id', 'all left out'
    IMAGE_REPEATED = 'image listed again', 'taken once'
    SIZE_MISSING = 'image without height and width', 'size of the file taken'
    SIZE_WRONG = 'image file of another size than stated', 'size of the file taken'
    BOXES_OF_OTHER_SIZE = 'objects placed for another image size', 'image left out'
    NAME_ESCAPED = 'file name with backslashes or percent codes', 'read as a path'
    FILE_MISSING = 'image file that does not exist', 'image left out'
    FILE_EMPTY = 'image file of zero bytes', 'image left out'
    FILE_SPECIAL = 'image file that is a folder, device or pipe', 'image left out'
    FILE_REMOTE = 'URL as file name', 'image left out; download it, or set backend_args'
    FILE_HUGE = 'image of more pixels than max_pixels of its loader', 'image left out'
    FILE_UNREADABLE = 'image file that cannot be decoded', 'image left out'
    DEEP_PIXELS = (
        'deep image that turns nearly black or white',
        'kept; set deep_range of RFDETRLoadImage, or convert colours to 8 bits',
    )
    OBJECT_BROKEN = 'object without four finite box numbers', 'left out'
    OBJECT_TWICE = 'object id used before', 'kept, renumbered'
    TEXT_NUMBER = 'number written as text', 'read as a number'
    UNKNOWN_IMAGE = 'object of an image that is not listed', 'left out'
    UNKNOWN_CATEGORY = 'object of a category that is not listed', 'left out'
    UNUSED_CATEGORY = 'object of a category not in metainfo', 'left out'
    CLASS_MISSING = 'class that the file lacks', 'a class without objects', False
    GROUPING_CATEGORY = 'category without objects that groups others', 'left out', False
    FRACTIONS = (
        'box or polygon within the first pixel of its image',
        'kept; if these are fractions, multiply them by its width and height',
    )
    BOX_EMPTY = 'box of zero area', 'left out'
    BOX_OUTSIDE = 'box outside its image', 'left out'
    BOX_OVER_BORDER = 'box over the border of its image', 'clipped'
    POLYGON_BROKEN = 'polygon of fewer than three points', 'polygon left out'
    POLYGON_FAR = 'polygon far outside its image', 'polygon left out'
    MASK_BROKEN = 'mask that does not fit its image', 'mask left out'
    IGNORED = 'object marked "ignore"', 'no target, ignored in evaluation', False
    CROWD = 'crowd region', 'no target in training', False
    NO_OBJECTS = 'image without objects', 'kept', False

    def __init__(self, what: str, done: str, fault: bool = True) -> None:
        self.what = what
        self.done = done
        self.fault = fault


def finding_of(error: BadImageError) -> Finding:
    """The finding that the kind of an error about an image file is."""
    return Finding[f'FILE_{error.kind.upper()}']


def _show(value: Any) -> str:
    """A text for one line of a table, whatever a file holds."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    if len(text) > _EXAMPLE_LENGTH:
        text = f'{text[:_EXAMPLE_LENGTH]}...'
    return ''.join(char if char.isprintable() else '?' for char in text)


class Findings:
    """Counts of findings with the first examples of each.

    Args:
        source: what was looked at, for the heading; usually a file name.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.counts: Counter[Finding] = Counter()
        self.examples: dict[Finding, list[str]] = defaultdict(list)

    def add(self, finding: Finding, example: str | dict) -> None:
        """Count one more; ``example`` is the COCO object, or says where it is."""
        self.counts[finding] += 1
        if len(self.examples[finding]) < _EXAMPLES:
            if isinstance(example, dict):
                own, image = (_show(example.get(key)) for key in ('id', 'image_id'))
                example = f'object {own} of image {image}'
            self.examples[finding].append(_show(example))

    @property
    def faults(self) -> int:
        """Number of faults, notes left aside."""
        return sum(count for finding, count in self.counts.items() if finding.fault)

    def table(self) -> str:
        """One line for each kind, faults first, under a heading."""
        rows = [('count', 'what', 'what is done', 'for example')]
        for kind in sorted(self.counts, key=lambda kind: not kind.fault):
            examples = '; '.join(self.examples[kind])
            rows.append((str(self.counts[kind]), kind.what, kind.done, examples))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return '\n'.join([f'Found in {self.source}:', *lines])
