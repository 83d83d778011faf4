"""Official weights by name, wherever mmengine takes a checkpoint."""

from . import official_weights


def find_official_weights() -> str:
    """Let mmengine load ``rfdetr://nano`` from where its file was downloaded to.

    Returns:
        The reason.
    """
    from mmengine.runner import CheckpointLoader

    CheckpointLoader.register_scheme(
        official_weights.SCHEME, load_from_official, force=True
    )
    return 'mmengine does not know the names of the official weights.'


def load_from_official(filename: str, map_location=None) -> dict:
    """Load official weights that were downloaded; nothing is downloaded here.

    Args:
        filename: as ``rfdetr://nano``.
        map_location: as in :func:`torch.load`.

    Raises:
        FileNotFoundError: they were not; with the command that does.
    """
    from ..compat.checkpoints import load_from_local

    return load_from_local(str(official_weights.find(filename)), map_location)
