"""The command-line options of the configuration, made from its declarations: no list to maintain.

Imports click and `config` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from gqn_model.config import Declaration, declarations

F = TypeVar("F", bound=Callable[..., Any])


def config_options(command: F) -> F:
    """Adds an option for every field: `--batch-size 16`, `--shared-cores/--no-shared-cores`.

    An option that is not given arrives as None, so that presets and mods decide.
    """
    for one in reversed(list(declarations())):
        command = _option(one)(command)
    return command


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, by the name of their field."""
    return {name: value for name, value in options.items() if value is not None}


def _option(one: Declaration) -> Callable[[F], F]:
    flag = "--" + one.name.replace("_", "-")
    about = f"{one.about[0].upper()}{one.about[1:]}. [{one.part}; default of `paper`: {one.default}]"
    if one.kind is bool:
        # A pair of flags: nothing to parse, so `--flag False` cannot be read as true.
        return click.option(f"{flag}/--no-{flag[2:]}", one.name, default=None, help=about)
    if one.choices and one.several:
        # The configuration checks the names, and says what is possible.
        metavar = f"[{'|'.join(one.choices)}],..."
        return click.option(flag, one.name, metavar=metavar, default=None, help=about)
    kind: Any = click.Choice(one.choices) if one.choices else one.kind
    return click.option(flag, one.name, type=kind, default=None, help=about)
