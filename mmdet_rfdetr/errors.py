"""Errors that say everything in their message."""


class ExplainedError(Exception):
    """What went wrong and what to do next, in the message; no traceback is needed.

    The command line tools print the message alone and leave with the exit code 1.
    """


class SettingError(ExplainedError, ValueError):
    """A setting, of a config or of a call, that is wrong or does not fit another."""


class MissingPackageError(ExplainedError, ImportError):
    """A setting needs a package that is not installed."""
