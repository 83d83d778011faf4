"""Errors that say everything in their message."""


class ExplainedError(Exception):
    """What went wrong and what to do next, in the message; no traceback is needed.

    The command line tools print the message alone and leave with the exit code 1.
    """
