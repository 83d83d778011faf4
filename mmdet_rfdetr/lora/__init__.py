"""LoRA and DoRA adapters on the encoder, put on a finished model from outside."""

from . import adapters, entries  # noqa: F401
