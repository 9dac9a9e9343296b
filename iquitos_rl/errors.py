"""Exceptions that end a command with one sentence."""


class UserError(Exception):
    """A mistake in a file, a setting or an argument, told in one sentence that names the file, key or row.

    Commands print the sentence and exit with status 2; library code raises it before anything is written.
    """


class Failure(Exception):
    """Something failed that is not the user's input: commands print the sentence and exit with status 1."""

    prefix = "error"
    details = ""
    """A traceback of another process, if there is one; shown where the user asks for tracebacks."""
