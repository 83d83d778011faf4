"""COCO data as the official package takes it."""

import gc
from collections import defaultdict

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from .annotations import match_categories, read_annotations


@DATASETS.register_module()
class RFDETRCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset`` with the boxes and labels of the official package.

    Labels follow ``metainfo.classes`` by name, whatever the order of the categories in
    the file. Boxes are clipped to their image and kept also if they are smaller than a
    pixel. Objects marked ``"ignore"`` are regions like crowds, which are no target.

    Attributes:
        object_counts: objects to learn of each image, before ``filter_cfg`` and
            ``indices``.

    Args:
        ann_file: the annotations.
        metainfo: with the names of ``classes``, those of COCO if left out.
        *args: other arguments of ``CocoDataset``.
        **kwargs: likewise.

    Raises:
        BadDataError: if the file cannot be used, or lacks the classes.
    """

    def __init__(self, ann_file='', metainfo=None, *args, **kwargs) -> None:
        self._names_classes = 'classes' in (metainfo or ())
        super().__init__(ann_file, metainfo, *args, **kwargs)

    def full_init(self) -> None:
        """Read and serialise, as mmdet does."""
        # Millions of objects are made, and the search for circles among them, of which
        # there are none, would take a third of the time.
        thresholds = gc.get_threshold()
        gc.set_threshold(0)
        try:
            super().full_init()
        finally:
            gc.set_threshold(*thresholds)

    def load_data_list(self) -> list[dict]:
        """Read the annotations; the result is mmdet's."""
        document = self.read_document()
        self.cat2label = match_categories(
            document['categories'],
            self.metainfo['classes'],
            self.ann_file,
            # Whoever forgets metainfo trains with the classes of COCO.
            needs_most=not self.test_mode and not self._names_classes,
        )
        self.cat_ids = list(self.cat2label)
        category = {label: key for key, label in self.cat2label.items()}
        objects, self.cat_img_map = defaultdict(list), defaultdict(list)
        for annotation in document['annotations']:
            objects[annotation['image_id']].append(annotation)
        data_list, self.object_counts = [], []
        for image in document['images']:
            raw = dict(raw_img_info=image, raw_ann_info=objects[image['id']])
            if info := self.parse_data_info(raw):
                flags = [instance['ignore_flag'] for instance in info['instances']]
                self.object_counts.append(flags.count(0))
                for label in {item['bbox_label'] for item in info['instances']}:
                    self.cat_img_map[category[label]].append(image['id'])
                data_list.append(info)
        return data_list

    def read_document(self) -> dict:
        """Read ``ann_file``: lists ``images``, ``annotations`` and ``categories``."""
        return read_annotations(self.ann_file, self.backend_args)

    def parse_data_info(self, raw_data_info: dict) -> dict | None:
        """Convert an image and its objects to mmdet's form.

        Args:
            raw_data_info: ``raw_img_info`` and ``raw_ann_info``, of the file.

        Returns:
            mmdet's dict; None leaves the image out.
        """
        image = raw_data_info['raw_img_info']
        image = dict(image, img_id=image['id'])
        info = super().parse_data_info(dict(raw_img_info=image, raw_ann_info=[]))
        size = image['height'], image['width']
        info['instances'] = [
            instance
            for annotation in raw_data_info['raw_ann_info']
            if (instance := self.parse_object(annotation, size))
        ]
        return info

    def parse_object(self, annotation: dict, size: tuple[int, int]) -> dict | None:
        """Convert an object in an image of (height, width); None if nothing is left."""
        label = self.cat2label.get(annotation['category_id'])
        box = clip_box(annotation['bbox'], size)
        if label is None or box is None:
            return None
        ignored = bool(annotation.get('ignore') or annotation.get('iscrowd'))
        mask = annotation.get('segmentation') or []
        return dict(bbox=box, bbox_label=label, ignore_flag=int(ignored), mask=mask)


def clip_box(box: list[float], size: tuple[int, int]) -> list[float] | None:
    """Clip a box of x, y, width and height to an image of (height, width).

    Returns:
        Left, top, right and bottom; None if nothing of it lies in the image.
    """
    x, y, width, height = map(float, box)
    # Half the cost of max, and there are millions of boxes.
    left, top = 0.0 if x < 0 else x, 0.0 if y < 0 else y
    right, bottom = min(x + width, float(size[1])), min(y + height, float(size[0]))
    return [left, top, right, bottom] if left < right and top < bottom else None
