"""What a table of findings says, and what a data set holds."""

from pathlib import Path


def row(told, finding):
    """The line of the table about ``finding``: (count, rest)."""
    ((table, _),) = told
    (line,) = [line for line in table.splitlines() if finding.what in line]
    count, rest = line.split(maxsplit=1)
    assert finding.done in rest
    return int(count), rest


def labels(dataset):
    """File name to the names of its objects."""
    classes = dataset.metainfo['classes']
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return {
        Path(info['img_path']).name: [
            classes[instance['bbox_label']] for instance in info['instances']
        ]
        for info in infos
    }
