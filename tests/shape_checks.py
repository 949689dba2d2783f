"""The type checker that tests run on annotations: see tests/conftest.py."""

from beartype import BeartypeConf, beartype

# An int passes for a float, as type checkers have it (PEP 484).
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
    """Returns the function with checks, but constructors as they are.

    The specs check their fields themselves, with messages for users.
    """
    return function if function.__name__ == "__init__" else _beartype(function)
