"""Where the configs lie that come with this package."""

from pathlib import Path


def config(name: str) -> str:
    """Return the path of a config that comes with this package.

    Args:
        name: File name in ``configs/``, for example ``'rfdetr_nano_coco.py'``.

    Raises:
        FileNotFoundError: there is no such config; the message lists those there are.
    """
    package = Path(__file__).resolve().parent
    # The wheel holds the configs inside the package, a checkout beside it.
    folder = package / 'configs'
    if not folder.is_dir():
        folder = package.parent / 'configs'
    path = folder / name
    if not path.is_file():
        shipped = ', '.join(sorted(file.name for file in folder.glob('*.py')))
        raise FileNotFoundError(
            f'No config {name!r} in {folder}; there are: {shipped}.'
        )
    return str(path)


def shipped_path(name: str) -> str | None:
    """The path of a config of this package, or None for the name of anything else.

    Args:
        name: for example ``'mmdet_rfdetr::rfdetr_nano_coco.py'``.

    Raises:
        FileNotFoundError: there is no such config; the message lists those there are.
    """
    package, separator, file = name.partition('::')
    return config(file) if separator and package == 'mmdet_rfdetr' else None
