"""Files that are there as a whole or not at all."""

from pathlib import Path

from rfdetr_datasets.files import DatasetError


def write_whole(texts: dict[Path, str], overwrite: bool) -> None:
    """Write files, each of which is there as a whole or not at all.

    Raises:
        DatasetError: if one is there and may not be replaced, before any is written; or
            if it cannot be written.
    """
    there = [path for path in texts if path.exists()]
    if there and not overwrite:
        raise DatasetError(
            f'{there[0]} is there already: name another folder, or say that files may '
            'be replaced.'
        )
    for path, text in texts.items():
        scratch = path.with_name(f'.{path.name}.part')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(text, encoding='utf-8', newline='\n')
            scratch.replace(path)
        except OSError as error:
            what = f'{path} cannot be written: {error.strerror}.'
            raise DatasetError(what) from error
        finally:
            if scratch.is_file():
                scratch.unlink()
