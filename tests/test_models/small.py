"""A model small enough to be built in every test."""

from mmdet.registry import MODELS

from tests import golden, parity

SIZES = golden.CASES['windows']['model']
CLASSES = 5


def small_config(**sizes):
    """Config of a small model.

    Args:
        **sizes: official names of sizes that differ from those of the golden case
            ``windows``.
    """
    return parity.model_config({**SIZES, **sizes}, CLASSES)


def small_backbone(**arguments):
    """A ViT of four blocks, width 48, patch 8, two windows a side."""
    return MODELS.build({**small_config()['backbone'], **arguments})
