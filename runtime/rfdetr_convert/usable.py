"""What of a document can be written, and a list of what cannot."""

import math
from collections import Counter
from collections.abc import Iterator

_EXAMPLES = 2


class Lost:
    """What was not written, or not as it was.

    Attributes:
        counts: how often, by what it is.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, what: str, example: object) -> None:
        """Count one more; ``example`` says where it is."""
        self.counts[what] += 1
        if self.counts[what] <= _EXAMPLES:
            self._examples.setdefault(what, []).append(str(example))

    def lines(self) -> Iterator[str]:
        """One line for each kind, the most frequent first."""
        for what, count in self.counts.most_common():
            yield f'{count} {what}, for example {"; ".join(self._examples[what])}'


def usable(document: dict, lost: Lost) -> list[tuple[dict, list[dict]]]:
    """Images with their objects, without what no format can hold.

    Args:
        document: of a COCO file, from any reader.
        lost: what is left out is added here.
    """
    categories = {entry.get('id') for entry in document['categories']}
    objects: dict = {image.get('id'): [] for image in document['images']}
    for annotation in document['annotations']:
        if not is_box(annotation.get('bbox')):
            what = 'objects without four finite box numbers'
        elif annotation.get('image_id') not in objects:
            what = 'objects of an image that is not listed'
        elif annotation.get('category_id') not in categories:
            what = 'objects of a class that is not listed'
        else:
            objects[annotation['image_id']].append(annotation)
            continue
        lost.add(f'{what}: left out', annotation.get('id'))
    kept = []
    for image in document['images']:
        key, name = image.get('id'), image.get('file_name')
        if isinstance(name, str) and key in objects:
            kept.append((image, objects.pop(key)))
        else:
            what = 'images without a name, or listed again: left out'
            lost.add(what, f'{key}: {image.get("error", name)}')
    return kept


def is_box(box: object) -> bool:
    """Whether something is four finite numbers."""
    return is_numbers(box) and len(box) == 4


def is_numbers(values: object) -> bool:
    """Whether something is a list of finite numbers."""
    if not isinstance(values, list):
        return False
    try:
        return all(math.isfinite(each) for each in values)
    except (TypeError, OverflowError):  # texts, and numbers of hundreds of digits
        return False
