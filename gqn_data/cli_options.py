"""What the commands of both groups share: how faults end, what is said, options that take places.

Results go to stdout, progress and messages to stderr. Exit status: 0 done, 1 the data or the run failed,
2 usage, 130 interrupted. Imports click, `errors` and `stores`: nothing heavy, so that `--help` is quick.
"""

from __future__ import annotations

import json
import os
from typing import Any

import click

from gqn_data.errors import GQNError, OptionError, SourceMissing, UnknownName
from gqn_data.io.paths import AnyPath, parse_path

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class Commands(click.Group):
    """A group of commands that ends every fault of the user's data or options in one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except (OptionError, UnknownName) as error:
            log(f"Error: {error}")
            ctx.exit(USAGE)
        except GQNError as error:
            log(f"Error: {error}")
            ctx.exit(FAILED)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            log("Error: this command needs PyTorch, which is not installed: pip install 'gqn-toolkit[train]'")
            ctx.exit(FAILED)
        except BrokenPipeError:
            raise  # click's to handle: whoever read our output has seen enough
        except OSError as error:
            log(f"Error: {error.filename or 'the system'}: {error.strerror or error}")
            ctx.exit(FAILED)
        except KeyboardInterrupt:
            log("Interrupted. What is whole was kept; run the same command again to go on.")
            ctx.exit(INTERRUPTED)


def log(line: str) -> None:
    """One line to the user, on stderr; with its number where this is one of several ranks but the first."""
    rank = os.environ.get("RANK", "0")
    click.echo(line if rank == "0" else f"[rank {rank}] {line}", err=True)


def print_result(value: Any, lines: list[str], *, as_json: bool) -> None:
    """The result of a command, on stdout: as JSON, or as text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))


class PathType(click.ParamType[AnyPath]):
    """An option that takes a path or a URL."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AnyPath:
        """The place; a usage error for a URL that cannot be one."""
        try:
            return parse_path(value)
        except SourceMissing as error:
            self.fail(str(error), param, ctx)


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
