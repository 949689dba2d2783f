"""The one exception that means: the input is wrong, the program is not."""

import contextlib
import re
from collections.abc import Iterable, Iterator


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


@contextlib.contextmanager
def fields_as_keys(spec: type, section: str, **keys: str) -> Iterator[None]:
    """Errors of a spec's fields name the keys of the configuration.

    Args:
      spec: class whose name begins the messages.
      section: as "config.adapter".
      keys: {field: key} where they differ.
    """
    try:
        yield
    except InputError as error:
        text = re.sub(
            rf"\b{spec.__name__}\.(\w+)",
            lambda found: f"{section}.{keys.get(found[1], found[1])}",
            str(error))
        raise InputError(text) from error
