"""Errors that say everything in their message."""

from numbers import Integral


class ExplainedError(Exception):
    """What went wrong and what to do next, in the message; no traceback is needed.

    The command line tools print the message alone and leave with the exit code 1.
    """


class SettingError(ExplainedError, ValueError):
    """A setting, of a config or of a call, that is wrong or does not fit another."""


class MissingPackageError(ExplainedError, ImportError):
    """A setting needs a package that is not installed."""


def check_counts(**counts: int) -> None:
    """Refuse numbers of things of which there has to be one at least.

    Args:
        **counts: numbers by the name of their setting, with ``__`` for dots.

    Raises:
        SettingError: one is no whole number, or smaller than 1.
    """
    for name, count in counts.items():
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise SettingError(
                f'{name.replace("__", ".")}={count!r} must be a whole number, 1 or more'
            )
