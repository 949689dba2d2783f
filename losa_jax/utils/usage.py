"""Parses the command line of `losa_jax.main`, with plain help and errors."""

import itertools
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict

from losa_jax.utils import recipes
from losa_jax.utils.names import did_you_mean

EXIT_INPUT, EXIT_USAGE = 1, 2
# Keys with tuples of names instead of numbers.
_NAME_TUPLES = ("cache_subsets",)
_NO_RECIPE = ("--config=RECIPE is needed, as --config=configs/quick.py; see "
              "--help")


def parse(argv: Sequence[str], overview: str, sections: Mapping[str, str]
          ) -> list[str]:
    """Parses absl's flags of a whole command line.

    Args:
      overview: the first lines of --help.
      sections: {title in the help: names of its flags, separated by spaces}.

    Returns:
      the program's name and the arguments that are no flags.

    Raises:
      SystemExit: after --help (0), or after one line about an error: in a
        key or value of the recipe (EXIT_INPUT), or elsewhere (EXIT_USAGE).
    """
    if {"--help", "-help", "-h", "--h", "--helpshort", "-helpshort"
            } & set(argv[1:]):
        print(_help(overview, sections))
        sys.exit(0)
    recipes.make_importable()
    arguments = _with_recipe(argv)
    try:
        rest = flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        stop(f"{error}; see --help", EXIT_USAGE)
    except (flags.Error, LookupError, AttributeError, ValueError, OSError
            ) as error:
        message = _cause(error)
        if "positional argument" in message:  # of the recipe's function
            stop(_recipe_fault(argv, message), EXIT_INPUT)
        stop(message, EXIT_INPUT if message.startswith("--config")
              else EXIT_USAGE)
    except (SyntaxError, ImportError, NameError, TypeError) as error:
        stop(_recipe_fault(argv, str(error)), EXIT_INPUT)
    config = flags.FLAGS["config"].value
    if config is None:
        stop(_NO_RECIPE, EXIT_USAGE)
    _check_tuples(config)
    return rest


def _check_tuples(config: ConfigDict, prefix: str = "--config.") -> None:
    """Checks the elements of tuples, which ml_collections does not."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            _check_tuples(value, f"{prefix}{key}.")
        elif isinstance(value, tuple) and key not in _NAME_TUPLES and any(
                not isinstance(one, (int, float)) for one in value):
            stop(f"{prefix}{key}={value}: give numbers, as '(1,2)' (the "
                  "quotes are for the shell)", EXIT_INPUT)


def _cause(error: Exception) -> str:
    """Returns the cause of an absl or ml_collections error in one line."""
    text = str(error).replace("\\n", " ").replace("\\'", "'")
    if "has no attribute 'get_config'" in text:
        return ("--config: this file is no recipe: it has no function "
                "get_config")
    if isinstance(error, (LookupError, AttributeError)):
        name, _, hint = text.strip("'\"").partition("'")
        return (f"--config: the recipe has no {name!r}; configs/common.py "
                f"explains every key. {hint.strip()}").rstrip()
    # The message of ml_collections is a traceback that ends with the cause.
    cause = re.sub(r"^\w+(Error|Exception): ", "",
                   text.strip().splitlines()[-1].strip())
    if cause.startswith("flag --"):
        return cause.removeprefix("flag ")
    return f"--config: {cause}"


def _recipe_fault(argv: Sequence[str], error: str) -> str:
    """Explains why a recipe cannot be called."""
    path = _recipe(argv)
    name, _, variant = str(path).partition(":")
    if "takes 0 positional arguments" in error:
        return (f"--config={path}: this recipe has no variant {variant!r} and "
                f"no other: give --config={name}")
    if "required positional argument" in error:
        return (f"--config={path}: this recipe needs a variant: give "
                f"--config={name}:VARIANT; the file names them")
    return f"--config={path}: the recipe cannot be run as Python: {error}"


def _recipe(argv: Sequence[str]) -> str | None:
    """Returns the recipe that a command line names, if it does."""
    return next((after.partition("=")[2] if "=" in after else after
                 for before, after in itertools.pairwise(["", *argv])
                 if before in ("--config", "-config")
                 or after.startswith(("--config=", "-config="))), None)


def stop(message: str, status: int) -> NoReturn:
    """Prints a message and ends the program with a status."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _with_recipe(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with the path of the recipe's file; stops where
    there is none."""
    arguments = []
    for before, argument in zip(["", *argv], argv, strict=False):
        name, _, path = argument.partition("=")
        if before in ("--config", "-config"):
            argument = _existing(argument)
        elif name in ("--config", "-config") and "=" in argument:
            argument = f"{name}={_existing(path)}"
        arguments.append(argument)
    return arguments


def _existing(typed: str) -> str:
    """Returns the path of a recipe's file, with its variant."""
    if not typed:
        stop(_NO_RECIPE, EXIT_USAGE)
    path = recipes.find(typed)
    if not Path(path.partition(":")[0]).is_file():
        names = recipes.names()
        stop(f"--config={typed}: no such file; the path counts from the "
             "current folder. Recipes of the package: "
             f"{' '.join(names)}{did_you_mean(typed, names)}", EXIT_INPUT)
    return path


def _help(overview: str, sections: Mapping[str, str]) -> str:
    lines = [overview.rstrip()]
    for title, names in sections.items():
        lines += ["", f"{title}:"]
        for name in names.split():
            flag = flags.FLAGS[name]
            default = "" if flag.default in (None, "", False, -1) else (
                f" Default: {flag.default}.")
            lines += [f"  --{name}" + ("" if flag.boolean else "=..."),
                      _wrapped(flag.help + default, 6)]
    return "\n".join([
        *lines, "", f"Recipes and their variants (--config=RECIPE:VARIANT), in "
        f"{recipes.shipped_folder()}:",
        *(_wrapped(": ".join((name, ", ".join(variants))).rstrip(": "), 2)
          for name, variants in recipes.variants().items()),
        "Variants of activitynet.py and thumos.py also end in an adapter type: "
        "s_tia.",
        "--helpfull lists every flag, those of the libraries too."])


def _wrapped(text: str, indent: int) -> str:
    return textwrap.indent(textwrap.fill(text, 79 - indent), " " * indent)
