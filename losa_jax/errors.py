"""The exception for bad input, and checks of specs that raise it."""

import contextlib
import dataclasses
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
    """Returns the first lines, indented, and the number of the others."""
    others = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "".join(f"\n  {line}" for line in [*lines[:most], *others])


def counted(count: int, one: str, many: str = "") -> str:
    """Returns a number of things in words, as "1 video" or "2 videos"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def check_choice(spec: object, name: str, known: Iterable[object]) -> None:
    """Raises InputError unless a field has one of the known values."""
    known = tuple(known)
    if getattr(spec, name) not in known:
        _refuse(spec, name, f"choose one of {', '.join(map(str, known))}")


def check_flags(spec: Any) -> None:
    """Raises InputError unless all fields of type bool are True or False."""
    for field in dataclasses.fields(spec):
        if field.type is bool:
            check_choice(spec, field.name, (True, False))


def check_whole(spec: object, least: int, *names: str) -> None:
    """Raises InputError unless fields are whole numbers, `least` or more."""
    for name in names:
        value = getattr(spec, name)
        if not (_is_whole(value) and value >= least):
            _refuse(spec, name, f"must be at least {least}"
                    f"{'' if _is_whole(value) else ' and a whole number'}")


def check_odd(spec: object, *names: str) -> None:
    """Raises InputError unless fields are odd numbers above 0."""
    for name in names:
        if not is_odd(getattr(spec, name)):
            _refuse(spec, name, "must be an odd number, 1 or more")


def is_odd(value: object) -> bool:
    """Returns whether this is an odd whole number above 0."""
    return _is_whole(value) and value > 0 and value % 2 == 1


def check_heads(spec: Any, name: str) -> None:
    """Raises InputError unless a number of heads divides `spec.width`."""
    heads, title = getattr(spec, name), type(spec).__name__
    if spec.width % heads:
        raise InputError(
            f"{title}.width={spec.width} does not divide by {title}.{name}="
            f"{heads}: give another number of heads")


def check_grid(spec: object, name: str) -> None:
    """Raises InputError unless a field is (rows, columns)."""
    value = getattr(spec, name)
    if not (isinstance(value, tuple) and len(value) == 2 and all(
            _is_whole(side) and side >= 1 for side in value)):
        _refuse(spec, name, "give a tuple of two whole numbers of 1 or more, "
                "as (4, 4)")


def check_between(spec: object, low: float, high: float, *names: str,
                  without: tuple[float, ...] = ()) -> None:
    """Raises InputError unless fields are finite numbers from low to high.

    An infinite bound is none; the bounds in `without` are not allowed.
    """
    for name in names:
        value = getattr(spec, name)
        is_number = isinstance(value, Real)
        if (is_number and math.isfinite(value) and low <= value <= high
                and value not in without):
            continue
        rule = " and ".join(
            f"{outside if bound in without else inside} {bound}"
            for bound, inside, outside in ((low, "at least", "above"),
                                           (high, "at most", "below"))
            if math.isfinite(bound))
        if rule and not is_number:
            rule = f"a number, {rule}"
        _refuse(spec, name, f"must be {rule or 'a finite number'}")


def _is_whole(value: object) -> TypeGuard[int]:
    """Returns whether this is an integer of Python or numpy, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _refuse(spec: object, name: str, rule: str) -> NoReturn:
    raise InputError(f"{type(spec).__name__}.{name}={getattr(spec, name)!r}: "
                     f"{rule}")


@contextlib.contextmanager
def fields_as_keys(spec: Any, section: str, **keys: str) -> Iterator[None]:
    """Makes errors of a spec's fields name the keys of the configuration.

    The keys are of a section such as "config.adapter". `keys` maps fields to
    keys of another name, or of another section if they begin with "config.".
    """
    def key_of(match: re.Match[str]) -> str:
        key = keys.get(match[1], match[1])
        return key if key.startswith("config.") else f"{section}.{key}"

    try:
        yield
    except InputError as error:
        raise InputError(re.sub(rf"\b{spec.__name__}\.(\w+)", key_of,
                                str(error))) from error
