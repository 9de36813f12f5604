"""What both commands share: options that take paths, error lines, exit statuses and output.

Results go to stdout, progress and messages to stderr. Exit status: 0 success, 1 the data or the run failed, or a
package is not installed, 2 usage, 130 interrupted. Nothing heavy is imported, so that `--help` is fast.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.shell_completion import CompletionItem

from gqn_data.errors import ExtraMissing, GQNError, OptionError, SourceMissing, UnknownName, install_hint
from gqn_data.io.paths import AnyPath, DatasetPath, StorePath, local_path, parse_dataset_path, parse_path

FAILED, USAGE, INTERRUPTED = 1, 2, 130


# Packages that commands import when they need them, and the extra that installs each.
_EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "distributed": "cluster",
    "matplotlib": "plot",
    "av": "video",
    "viser": "viewer",
    "rich": "viewer",
    "websockets": "viewer",
}

# Commands that keep finished files when they are interrupted.
_RESUMABLE = {"convert", "render", "download", "index", "train", "push"}

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class _Messages(io.TextIOBase):
    """stderr of a command, which stays quiet once its reader has gone: a lost message must not end a run.

    Args:
        stream: the real stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop what it holds."""
        try:
            self._stream.flush()
        except OSError:
            self._silence()

    def _silence(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Treatment of characters that the encoding lacks."""
        return self._stream.errors


def secure_streams() -> None:
    """Make the standard streams usable, also if the process was started without them.

    Closed descriptors are opened on the null device. Otherwise the next file that is opened would take the number, and
    messages would land in it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if sys.stderr is sys.__stderr__ or sys.__stderr__ is None:
        sys.stderr = _Messages(sys.stderr)


class Commands(click.Group):
    """A group of commands that reports each expected error as one line and an exit status."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command line."""
        if sys.stderr is None or sys.stderr is sys.__stderr__:  # not in a test runner, which has its own streams
            secure_streams()
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL and current_thread() is main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # `__main__` let Ctrl-C end the imports
        return super().main(*arguments, **options)

    def _with_flags(self, ctx: click.Context, message: str) -> str:
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        return message if command is None else with_flags(message, command.params)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # the name of a file may be any bytes
        try:
            return super().invoke(ctx)
        except (OptionError, UnknownName) as error:
            log(f"Error: {self._with_flags(ctx, str(error))}")
            ctx.exit(FAILED if isinstance(error, ExtraMissing) else USAGE)
        except GQNError as error:
            log(f"Error: {self._with_flags(ctx, str(error))}")
            ctx.exit(FAILED)
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").split(".", maxsplit=1)[0])
            if extra is None:
                raise
            log(f"Error: this command needs {error.name}; it is not installed. Install it with: {install_hint(extra)}")
            ctx.exit(FAILED)
        except BrokenPipeError:
            raise  # click handles it: the reader of our output has closed it
        except OSError as error:
            log(f"Error: {error.filename or 'the system'}: {error.strerror or error}")
            ctx.exit(FAILED)
        except UnicodeEncodeError as error:
            log(f"Error: {error.object[:200]!a}: not UTF-8, expected a name that can be written; rename it")
            ctx.exit(FAILED)
        except (MemoryError, RuntimeError) as error:
            # torch reports a full memory as a RuntimeError.
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in _OUT_OF_MEMORY):
                raise
            remedy = "Use smaller batches (batch_size=), fewer workers (workers=), or another machine"
            log(f"Error: not enough memory. {self._with_flags(ctx, remedy)}")
            ctx.exit(FAILED)
        except KeyboardInterrupt:
            kept = ctx.invoked_subcommand in _RESUMABLE
            log("Interrupted. Finished files were kept; rerun to resume." if kept else "Interrupted.")
            ctx.exit(INTERRUPTED)


def with_flags(message: str, options: Iterable[click.Parameter]) -> str:
    """Return an error of the API in the words of a command: `tail='pad'` becomes `--tail pad`.

    Args:
        message: the message, which names arguments.
        options: parameters of the command. One of several remedies, and an argument in brackets, is left out if there
            is not an option for it.
    """
    flags = {one.name: max(one.opts, key=len) for one in options if isinstance(one, click.Option) and one.name}
    for name, flag in flags.items():
        # A path may hold such words: `data/seed=1`, `render:mazes,seed=1`.
        argument = rf"(?<![\w/,:.-]){name}="
        message = re.sub(rf"{argument}True(?![\w/:])", flag, message)
        message = re.sub(rf"{argument}'([^']*)'", rf"{flag} \g<1>", message)
        message = re.sub(rf"{argument}(?=[\w.-]+(?:[\s,;)]|$))", f"{flag} ", message)
        message = re.sub(rf"{argument}(?=[,;)]|$)", flag, message)
        message = re.sub(
            rf"(^|[;:] )(?<!one of: )(?<!possible: ){name}(?= is |: found| and |, )", rf"\g<1>{flag}", message
        )
    message = re.sub(r" \((?:\w+=(?:, )?)+\)", "", message)
    return re.sub(r",? or (\w+)='[^']*'(?: or '[^']*')?", "", message)


def log(line: str) -> None:
    """Print a line for the user on stderr, with the rank in front except on rank 0."""
    rank = os.environ.get("RANK", "0")
    click.echo(line if rank == "0" else f"[rank {rank}] {line}", err=True)


def print_result(value: Any, lines: list[str], *, as_json: bool) -> None:
    """Print the result of a command on stdout, as JSON or as text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))


if TYPE_CHECKING:
    _PathParam = click.ParamType[AnyPath]
    _DatasetPathParam = click.ParamType[DatasetPath]
    _LocalPathParam = click.ParamType[Path]
else:
    _PathParam = _DatasetPathParam = _LocalPathParam = click.ParamType  # generic at run time from click 8.4 on


def complete_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Let the shell complete a path."""
    return [CompletionItem(incomplete, type="file")]


class _PathCompletion:
    """Completion of a parameter's path by the shell."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the request that the shell completes a path."""
        return complete_path(ctx, param, incomplete)


class PathType(_PathCompletion, _PathParam):
    """Parameter type of a path or URL."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AnyPath:
        """Return the path, or fail with a usage error for a URL that is not valid."""
        try:
            return parse_path(value)
        except (OptionError, SourceMissing) as error:
            self.fail(str(error), param, ctx)


class DatasetPathType(_PathCompletion, _DatasetPathParam):
    """Parameter type of a dataset: a path, a URL or a `render:` address."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DatasetPath:
        """Return the path or address, or fail with a usage error for one that is not valid."""
        try:
            return parse_dataset_path(value)
        except (OptionError, SourceMissing) as error:
            self.fail(str(error), param, ctx)


class LocalPathType(_PathCompletion, _LocalPathParam):
    """Parameter type of a local path.

    Args:
        what: what needs a local disk, for the message, such as "pictures are written".
    """

    name = "path"

    def __init__(self, what: str) -> None:
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, or fail with a usage error for a URL."""
        try:
            return local_path(value, self._what)
        except (OptionError, SourceMissing) as error:
            self.fail(str(error), param, ctx)


class OutputType(LocalPathType):
    """A local file to write, in a folder that exists."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, or fail if its folder does not exist."""
        path = super().convert(value, param, ctx)
        if not path.parent.is_dir():
            self.fail(f"{path}: the folder {path.parent} does not exist; make it first", param, ctx)
        return path


def shown(path: AnyPath, given: AnyPath) -> AnyPath | str:
    """Return a path as its user would write it: relative if the given path, in which it lies, was relative."""
    return path if isinstance(path, StorePath) or given.absolute() == given else os.path.relpath(path)


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

host_option = click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Another one lets others open the viewer, without a password.",
)
port_option = click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Port; the next free one if it is taken.",
)
