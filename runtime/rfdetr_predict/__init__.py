"""Detects in pictures, folders, videos and cameras, and writes what it found.

``python -m rfdetr_predict MODEL SOURCE...`` is the command; it needs no PyTorch.
"""

from .sources import Sources

__all__ = ['Sources']
