from mmdet_rfdetr.checkpoints.report import LoadReport, Reshaped


def test_a_table_lists_what_did_not_fit():
    report = LoadReport('RF-DETR checkpoint', 9)
    report.reshaped = [
        Reshaped('head.weight', (91, 256), (3, 256), 'first 3 class rows'),
        Reshaped('head.bias', (3,), (3,), 'class rows by name'),
    ]
    report.missing = ['norm.bias']
    report.unexpected = ['layers.3.bias', 'layers.4.bias']
    report.notes = ['classes by name: none in common']
    assert str(report).splitlines() == [
        'RF-DETR checkpoint, 9 entries: 1 reshaped, 1 reordered, 1 missing, '
        '2 unexpected',
        '  reshaped  head.weight  91x256 -> 3x256  first 3 class rows',
        '  reordered  head.bias  3 -> 3  class rows by name',
        '  missing  norm.bias',
        '  unexpected  layers.3.bias, layers.4.bias',
        '  classes by name: none in common',
    ]


def test_many_names_are_counted():
    report = LoadReport('RF-DETR checkpoint', 9, missing=[f'a{i}' for i in range(99)])
    assert str(report).endswith('a11 and 87 more')
