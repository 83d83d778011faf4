import pytest

from mmdet_rfdetr.checkpoints.report import LoadReport, Reshaped


def test_a_table_lists_every_entry_in_aligned_columns():
    report = LoadReport('RF-DETR checkpoint', 9)
    report.reshaped = [
        Reshaped('head.weight', (91, 256), (3, 256), 'first 3 class rows'),
        Reshaped('head.bias', (91,), (3,), 'first 3 class rows'),
        Reshaped('layers.0.bias', (4,), (2,), 'cut'),
        Reshaped('layers.1.bias', (4,), (2,), 'cut'),
    ]
    report.missing = ['norm.bias']
    report.unexpected = ['layers.3.bias', 'layers.4.bias', 'layers.7.bias']
    assert str(report).splitlines() == [
        'RF-DETR checkpoint, 9 entries: 4 reshaped, 1 missing, 3 unexpected',
        '  reshaped    head.weight          91x256 -> 3x256  first 3 class rows',
        '  reshaped    head.bias            91 -> 3          first 3 class rows',
        '  reshaped    layers.{0,1}.bias    4 -> 2           cut',
        '  missing     norm.bias',
        '  unexpected  layers.{3,4,7}.bias',
    ]


@pytest.mark.parametrize(
    ('names', 'joined'),
    [
        (['a.1.b'], ['a.1.b']),
        (['a.0.b.5', 'a.1.b.5', 'a.2.b.5'], ['a.{0,1,2}.b.5']),
        (['a.10.b', 'a.9.b', 'a.2.b'], ['a.{2,9,10}.b']),
        (['a.0.b.0', 'a.1.b.1'], ['a.0.b.0', 'a.1.b.1']),  # not four names
        (['fc1.bias', 'fc2.bias'], ['fc1.bias', 'fc2.bias']),
    ],
)
def test_names_that_differ_in_one_number_share_a_line(names, joined):
    report = LoadReport('RF-DETR checkpoint', 9, missing=names)
    lines = str(report).splitlines()[1:]
    assert [line.split()[1] for line in lines] == joined
