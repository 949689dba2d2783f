"""The one exception that means: the input is wrong, the program is not."""

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, NoReturn, TypeGuard


class InputError(Exception):
    """Bad input or configuration.

    The message names the file, entry or key and says what to do. The command
    lines print it without a traceback and exit with 1.
    """


def listed(lines: Sequence[str], most: int = 20) -> str:
    """Returns the first lines for a message, each indented, and the number of
    the others."""
    others = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "".join(f"\n  {line}" for line in [*lines[:most], *others])


def check_choice(spec: object, name: str, known: Iterable[object]) -> None:
    """Raises InputError where a field of a spec has none of the known values.

    The message begins with the spec's class and the field.
    """
    value, known = getattr(spec, name), tuple(known)
    if value not in known:
        raise InputError(f"{type(spec).__name__}.{name}={value!r}: choose one "
                         f"of {', '.join(map(str, known))}")


def check_whole(spec: object, least: int, *names: str) -> None:
    """Raises InputError where one of these is no whole number or below."""
    for name in names:
        value = getattr(spec, name)
        if not (_is_whole(value) and value >= least):
            _refuse(spec, name, f"must be at least {least}"
                    f"{'' if _is_whole(value) else ' and a whole number'}")


def check_odd(spec: object, *names: str) -> None:
    """Raises InputError where one of these is no odd number above 0."""
    for name in names:
        value = getattr(spec, name)
        if not is_odd(value):
            _refuse(spec, name, "must be an odd number, 1 or more")


def is_odd(value: object) -> bool:
    """Whether this is an odd whole number above 0."""
    return _is_whole(value) and value > 0 and value % 2 == 1


def check_grid(spec: object, *names: str) -> None:
    """Raises InputError where one of these is not (rows, columns)."""
    for name in names:
        value = getattr(spec, name)
        if not (isinstance(value, tuple) and len(value) == 2 and all(
                _is_whole(side) and side >= 1 for side in value)):
            _refuse(spec, name, "give a tuple of two whole numbers of 1 or "
                    "more, as (4, 4)")


def check_between(spec: object, low: float, high: float, *names: str,
                  without: tuple[float, ...] = ()) -> None:
    """Raises InputError where one of these is no number from low to high.

    Args:
      spec: whose fields they are.
      low, high: both allowed unless in `without`; infinite ones are no
        bound, but the values themselves are finite.
      names: of the fields.
      without: those of the bounds that are not allowed themselves.
    """
    for name in names:
        value = getattr(spec, name)
        if (_is_number(value) and math.isfinite(value)
                and low <= value <= high and value not in without):
            continue
        bounds = [
            f"{'above' if low in without else 'at least'} {low}"
            if math.isfinite(low) else "",
            f"{'below' if high in without else 'at most'} {high}"
            if math.isfinite(high) else ""]
        rule = " and ".join(filter(None, bounds))
        if not rule:
            rule = "a finite number"
        elif not _is_number(value):
            rule = f"a number, {rule}"
        _refuse(spec, name, f"must be {rule}")


def _is_whole(value: object) -> TypeGuard[int]:
    """Python's and numpy's integers, not True and False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real)


def _refuse(spec: object, name: str, rule: str) -> NoReturn:
    raise InputError(f"{type(spec).__name__}.{name}={getattr(spec, name)!r}: "
                     f"{rule}")


@contextlib.contextmanager
def fields_as_keys(spec: Any, section: str, **keys: str) -> Iterator[None]:
    """Errors of a spec's fields name the keys of the configuration.

    Args:
      spec: class whose name begins the messages.
      section: as "config.adapter".
      keys: {field: key} where they differ; a key that begins with "config."
        is of another section.
    """
    try:
        yield
    except InputError as error:
        def key_of(found: re.Match[str]) -> str:
            key = keys.get(found[1], found[1])
            return key if key.startswith("config.") else f"{section}.{key}"

        raise InputError(re.sub(rf"\b{spec.__name__}\.(\w+)", key_of,
                                str(error))) from error
