"""The one exception that a user's input may cause."""


class UserError(Exception):
    """A mistake in a file, a setting or an argument, told in one sentence that names the file, key or row.

    Commands print the sentence and exit with status 2; library code raises it before anything is written.
    """
