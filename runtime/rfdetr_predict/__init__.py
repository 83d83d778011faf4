"""Detects in pictures, folders, videos and cameras, and writes what it found.

``python -m rfdetr_predict MODEL SOURCE...`` is the command; it needs no PyTorch.
"""

__all__ = ['Sources']


def __getattr__(name: str):
    # What needs NumPy and OpenCV waits until it is used: the command line parses first.
    if name != 'Sources':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .sources import Sources

    return Sources
