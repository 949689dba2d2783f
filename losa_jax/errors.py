"""The one exception that means: the input is wrong, the program is not."""

from collections.abc import Iterable


class InputError(Exception):
    """Bad input or configuration.

    The message names the file, entry or key and says what to do. The command
    lines print it without a traceback and exit with 1.
    """


def check_choice(spec: object, name: str, known: Iterable[str]) -> None:
    """Raises InputError where a field of a spec has none of the known values.

    The message begins with the spec's class and the field.
    """
    value = getattr(spec, name)
    if value not in known:
        raise InputError(f"{type(spec).__name__}.{name}={value!r}: choose one "
                         f"of {', '.join(known)}")


def check_at_least(spec: object, least: float, *names: str) -> None:
    """Raises InputError where one of these fields of a spec is below."""
    for name in names:
        value = getattr(spec, name)
        if not value >= least:
            raise InputError(f"{type(spec).__name__}.{name}={value}: must be "
                             f"at least {least}")
