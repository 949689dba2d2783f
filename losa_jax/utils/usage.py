"""The command line `losa_jax.main`: its help, and what is wrong with it."""

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict

from losa_jax.utils import recipes

EXIT_INPUT, EXIT_USAGE = 1, 2
_WIDTH = 79
# Tuples of names, not of numbers.
_OF_NAMES = ("cache_subsets",)


def parse(argv: Sequence[str], overview: str, sections: Mapping[str, str]
          ) -> list[str]:
    """absl's parser, with help and messages for people.

    Args:
      argv: the whole command line.
      overview: what --help says first.
      sections: title of each part of the help and the names of its flags,
        with spaces between.

    Returns:
      what is left: the program's name and arguments that are no flags.

    Raises:
      SystemExit: after --help, or with one line of what is wrong: a key or
        value of the recipe is EXIT_INPUT, anything else EXIT_USAGE.
    """
    asked = {argument.lstrip("-") for argument in argv[1:]
             if argument.startswith("-")}
    if asked & {"help", "h", "helpshort"}:
        print(_help(overview, sections))
        sys.exit(0)
    recipes.make_importable()
    try:
        rest = flags.FLAGS(_with_recipe(argv))
    except flags.UnrecognizedFlagError as error:
        _stop(f"{error}; see --help", EXIT_USAGE)
    except (flags.Error, LookupError, AttributeError, ValueError, OSError
            ) as error:
        message = _cause(error)
        _stop(message, EXIT_INPUT if message.startswith("--config")
              else EXIT_USAGE)
    except (SyntaxError, ImportError) as error:
        _stop(f"--config: the recipe is no Python that runs here: {error}",
              EXIT_INPUT)
    config = flags.FLAGS["config"].value
    if config is None:
        _stop("--config=RECIPE is needed, as --config=configs/quick.py; see "
              "--help", EXIT_USAGE)
    if isinstance(config, ConfigDict):  # not where the file is missing
        _check_tuples(config)
    return rest


def _check_tuples(config: ConfigDict, prefix: str = "--config.") -> None:
    """ml_collections looks at the type of a value, not of what is in it."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            _check_tuples(value, f"{prefix}{key}.")
        elif isinstance(value, tuple) and key not in _OF_NAMES and any(
                not isinstance(one, (int, float)) for one in value):
            _stop(f"{prefix}{key}={value}: give numbers, as '(1,2)' (the "
                  "quotes are for the shell)", EXIT_INPUT)


def _cause(error: Exception) -> str:
    """What an error of absl or ml_collections is about, in one line."""
    text = str(error).replace("\\n", " ").replace("\\'", "'")
    if isinstance(error, (LookupError, AttributeError)):
        name, _, hint = text.strip("'\"").partition("'")
        return (f"--config: the recipe has no {name!r}; configs/common.py "
                f"explains every key. {hint.strip()}").rstrip()
    # ml_collections puts a whole traceback into its message; the cause
    # stands at its end.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = re.sub(r"^\w+(Error|Exception): ", "", lines[-1])
    if cause.startswith("flag --"):
        return cause.removeprefix("flag ")
    return f"--config: {cause}"


def _stop(message: str, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _with_recipe(argv: Sequence[str]) -> list[str]:
    """The arguments, --config by the recipe's real path."""
    found = list(argv)
    for place, argument in enumerate(found):
        name, equals, path = argument.partition("=")
        if name.lstrip("-") == "config" and name.startswith("-"):
            if equals:
                found[place] = f"{name}={recipes.find(path)}"
            elif place + 1 < len(found):
                found[place + 1] = recipes.find(found[place + 1])
    return found


def _help(overview: str, sections: Mapping[str, str]) -> str:
    lines = [overview.rstrip()]
    for title, names in sections.items():
        lines += ["", f"{title}:"]
        for name in names.split():
            lines += _flag_lines(name)
    lines += ["", f"Recipes, in {recipes.shipped_folder()}:",
              *textwrap.wrap(" ".join(recipes.names()), _WIDTH,
                             initial_indent="  ", subsequent_indent="  "),
              "--helpfull lists every flag, those of the libraries too."]
    return "\n".join(lines)


def _flag_lines(name: str) -> list[str]:
    flag = flags.FLAGS[name]
    shown = f"  --{name}" + ("" if flag.boolean else "=...")
    default = "" if flag.default in (None, "", False, -1) else (
        f" Default: {flag.default}.")
    return [shown, *textwrap.wrap(
        flag.help + default, _WIDTH, initial_indent=" " * 6,
        subsequent_indent=" " * 6)]
