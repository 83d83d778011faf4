"""The version, the same as that of ``mmdet_rfdetr``."""

__version__ = '0.1.0'
