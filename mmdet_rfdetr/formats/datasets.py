"""Data sets of other formats than COCO's: YOLO, Pascal VOC, a CSV of boxes.

``rfdetr_datasets`` reads them. They are what COCO data sets are in all but the file:
the same checks, the same table of findings, the same metric.
"""

from mmdet.registry import DATASETS

from ..errors import BadDataError, SettingError

# The one that configs mean, also where a wing has taken the name.
CocoDataset = DATASETS.module_dict['RFDETRCocoDataset']


def read_other(path: str, backend_args: dict | None = None) -> dict | None:
    """Read annotations that are not in COCO's format.

    Args:
        path: ``data.yaml#val``, a list in ``ImageSets`` or a folder of XML, a CSV.
        backend_args: such files are local ones, so that it has to be empty.

    Returns:
        The document of a COCO file; None for a path of another kind.

    Raises:
        BadDataError: if it cannot be read.
        SettingError: if it is to come from elsewhere.
    """
    if str(path).endswith('.json'):
        return None
    import rfdetr_datasets
    from rfdetr_predict.progress import watched

    if rfdetr_datasets.kind_of(path) not in ('yolo', 'voc', 'csv'):
        return None
    if backend_args:
        raise SettingError(
            f'{path} is read from this machine, and backend_args={backend_args} say '
            'otherwise: copy it here, or convert it with tools/convert_dataset.py.'
        )
    try:
        return rfdetr_datasets.read(path, watched)
    except rfdetr_datasets.DatasetError as error:
        raise BadDataError(str(error)) from error


class _OtherFormat(CocoDataset):
    """Takes the folder of the images from the annotations, which say where they are."""

    FORMAT, EXAMPLE = '', ''

    def _join_prefix(self) -> None:
        import rfdetr_datasets

        if folder := self.data_prefix.get('img'):
            raise SettingError(
                f'The annotations of a {type(self).__name__} say where its images are: '
                f"set data_prefix=dict(img='') instead of {folder!r}."
            )
        super()._join_prefix()
        if rfdetr_datasets.kind_of(self.ann_file) != self.FORMAT:
            raise SettingError(
                f'{type(self).__name__} reads {self.EXAMPLE}, and not ann_file='
                f'{self.ann_file!r}: set ann_file, or the type that reads it.'
            )
        self.data_prefix = dict(img=rfdetr_datasets.image_root(self.ann_file))


@DATASETS.register_module()
class RFDETRYoloDataset(_OtherFormat):
    """Boxes or polygons of YOLO, by its ``data.yaml``.

    Arguments are those of ``RFDETRCocoDataset``. ``ann_file='data.yaml#train'`` says
    which part is meant, and ``data_prefix=dict(img='')`` takes the images from it. The
    metric is ``RFDETRCocoMetric`` with the same ``ann_file``, or without one.
    """

    FORMAT, EXAMPLE = 'yolo', 'data.yaml#train'


@DATASETS.register_module()
class RFDETRVocDataset(_OtherFormat):
    """Boxes of Pascal VOC, by a list in ``ImageSets`` or a folder of XML.

    As :class:`RFDETRYoloDataset`. Objects marked ``difficult`` are no target in
    training, and are ignored in evaluation.
    """

    FORMAT, EXAMPLE = 'voc', 'ImageSets/Main/train.txt or a folder of XML'


@DATASETS.register_module()
class RFDETRCsvDataset(_OtherFormat):
    """Boxes in a CSV, one in each line, as :class:`RFDETRYoloDataset`."""

    FORMAT, EXAMPLE = 'csv', 'boxes.csv'
