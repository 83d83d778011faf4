"""One page on what a detector got right and wrong; needs no PyTorch.

``python -m rfdetr_report --annotations FILE --results FILE --images DIR --out DIR`` is
the command, for COCO results of any detector; :func:`write_report` is what it calls.
"""

__all__ = ['write_report']


def __getattr__(name: str):
    # What needs pycocotools waits until it is used: the command line parses first.
    if name != 'write_report':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .report import write_report

    return write_report
