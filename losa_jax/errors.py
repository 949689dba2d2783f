"""The one exception that means: the input is wrong, the program is not."""


class InputError(Exception):
    """Bad input or configuration.

    The message names the file, entry or key and says what to do. The doors
    (`main`, `convert`, ...) print it without a traceback and exit with 1.
    """
