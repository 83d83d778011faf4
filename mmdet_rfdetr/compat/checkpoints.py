"""Checkpoint files and links, loaded without running code from them."""

import hashlib
import os
import re
import urllib.parse

# As mmengine writes them.
_STORAGES = ('pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')
_HASH = re.compile(r'-[0-9a-f]{8,}\.')  # torch.hub's rule for names of files


def load_checkpoints_safely() -> str | None:
    """Route checkpoint files and links through this package's own loader.

    ``mmengine`` calls ``torch.load`` with its defaults. Since torch 2.6 these refuse
    mmengine's own checkpoints, before they ran any code that a file contained, and for
    a link they still do. A loader for mmengine's schemes, rather than a process-wide
    list of allowed classes, leaves every other ``torch.load`` as it is.

    Returns:
        The reason; the gap is there with every version of torch.
    """
    from mmengine.runner import checkpoint
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(_STORAGES, load_from_storage, force=True)
    CheckpointLoader.register_scheme(
        ('http://', 'https://'), load_from_http, force=True
    )
    # The schemes that look a link up, such as open-mmlab://, fetch it by this name.
    checkpoint.load_from_http = load_from_http
    return (
        "mmengine's loader refuses its own checkpoints on torch 2.6 and newer, and "
        'unpickles anything on older versions and from links.'
    )


def load_from_local(filename: str, map_location=None) -> dict:
    """Load a checkpoint file without running code from it.

    Args:
        filename: Path of the file; ``~`` stands for the home folder.
        map_location: As in :func:`torch.load`.
    """
    from mmdet_rfdetr.checkpoints.loading import load_checkpoint_file

    return load_checkpoint_file(os.path.expanduser(filename), map_location)


def load_from_storage(filename: str, map_location=None) -> dict:
    """Refuse an address of mmengine's object storages, which it would unpickle.

    Args:
        filename: its address.
        map_location: As in :func:`torch.load`.

    Raises:
        FileNotFoundError: always.
    """
    raise FileNotFoundError(
        f'{filename} lies in a storage: copy it to a file and give its path.'
    )


def load_from_http(
    filename: str, map_location=None, model_dir: str | None = None, progress=None
) -> dict:
    """Download a checkpoint once, to torch's cache, and load it as a local file.

    Args:
        filename: Link to the file.
        map_location: As in :func:`torch.load`.
        model_dir: Folder in the place of torch's cache.
        progress: Draw a progress bar, or not; by default in a terminal.
    """
    import torch
    from mmengine.dist import barrier, get_rank

    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    shown = os.isatty(2) if progress is None else progress

    def download() -> str:
        path = os.path.join(folder, _name_in_cache(filename))
        if not os.path.isfile(path):
            os.makedirs(folder, exist_ok=True)
            torch.hub.download_url_to_file(filename, path, progress=shown)
        return path

    # Rank 0 first, so that ranks with a common cache do not all fetch the file; a
    # rank on another machine has its own cache and fetches it then.
    if get_rank() == 0:
        download()
    barrier()
    return load_from_local(download(), map_location)


def _name_in_cache(link: str) -> str:
    """The name of a link's file in a folder such as torch's cache.

    Torch goes by the file name, and what it has is taken. Several official checkpoints
    have one name and differ in the folder only, so a file gets a name of its own
    unless its name has a hash of its content.
    """
    name = os.path.basename(urllib.parse.urlparse(link).path)
    if _HASH.search(name):
        return name
    stem, extension = os.path.splitext(name)
    digest = hashlib.sha256(link.encode()).hexdigest()[:8]
    return f'{stem}-{digest}{extension}'
