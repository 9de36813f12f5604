"""Where the figures and pictures of a training go: one file a logger, one interface, one dict that names them.

Terminal and JSON lines are always there. The others need a package each; none is imported before it is opened, for the
configuration reads their names from here. What the figures mean: docs/training.md.

A logger more: a class with `log`, `picture` and `close` in a file of its own, and a line in `LOGGERS`.

Floor: the lowest package, beside `network`. Imports nothing of `gqn_model` but itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.errors import OptionError, install_hint
from gqn_model.loggers.record import Logger, LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LOGGERS", "Adapter", "Logger", "LoggerContext", "Record", "check_loggers", "chosen_loggers", "open_loggers"]


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A logger that needs a package.

    Attributes:
        package: the package's name.
        maker: `module:class`, the logger.
        aside: whether it is given a process of its own, as what asks a server needs.
        auto: whether it is taken without being asked for: it needs no server, no account, and nothing leaves the run.
        patience: seconds that the end of a training waits for it.
        install: what to type where the package is absent.
    """

    package: str
    maker: str
    install: str
    aside: bool = True
    auto: bool = False
    patience: float = 10.0


LOGGERS: dict[str, Adapter] = {
    "tensorboard": Adapter(
        package="tensorboard",
        maker="gqn_model.loggers.tensorboard:TensorBoard",
        install=install_hint("tensorboard"),
        aside=False,
        auto=True,
    ),
    "visdom": Adapter(
        package="visdom",
        maker="gqn_model.loggers.visdom:Visdom",
        # Its setup asks for pkg_resources, which setuptools no longer has.
        install='pip install "setuptools<81" wheel && pip install --no-build-isolation visdom',
    ),
    "wandb": Adapter(
        package="wandb",
        maker="gqn_model.loggers.wandb:WandB",
        install=install_hint("wandb"),
        patience=30.0,
    ),
    "trackio": Adapter(
        package="trackio",
        maker="gqn_model.loggers.trackio:Trackio",
        install=install_hint("trackio"),
        patience=30.0,
    ),
}


def chosen_loggers(names: str) -> list[str]:
    """The optional loggers that a list of names asks for, in the order of `LOGGERS`.

    Args:
        names: separated by commas; `auto` stands for those installed that need neither server nor account, `none`
            for none.

    Raises:
        OptionError: a name is unknown, or its package is not installed; says what to type.
    """
    asked = [name.strip() for name in names.split(",")]
    unknown = [name for name in asked if name not in ("auto", "none", *LOGGERS)]
    if unknown:
        raise OptionError(f"logger is {unknown[0]!r}; possible: {', '.join(('auto', 'none', *LOGGERS))}")
    for name in asked:
        if name in LOGGERS and not _installed(LOGGERS[name]):
            raise OptionError(
                f"logger is {name!r}, but the package {LOGGERS[name].package} is not installed; "
                f"leave the logger out, or install it with: {LOGGERS[name].install}"
            )
    return [
        name
        for name, adapter in LOGGERS.items()
        if name in asked or ("auto" in asked and adapter.auto and _installed(adapter))
    ]


def check_loggers(names: str) -> None:
    """Tells before anything is written, and on every rank alike, what `open_loggers` could not open.

    Raises:
        OptionError: as `chosen_loggers`.
    """
    chosen_loggers(names)


def open_loggers(
    names: str, run: Path, start: int, *, quiet: bool = False, config: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Logger]:
    """The loggers of a run: terminal and JSON lines always, and of the optional ones those asked for.

    Args:
        names: of optional loggers, as `chosen_loggers` takes them.
        run: the run's folder.
        start: step from which the training goes on.
        quiet: leave the terminal out.
        config: the resolved configuration as `Config.to_json` gives it: shown once, and read for the loggers' settings.

    Raises:
        OptionError: as `chosen_loggers`.
    """
    from gqn_model.loggers.json_lines import JsonLines
    from gqn_model.loggers.subprocess_logger import SubprocessLogger
    from gqn_model.loggers.terminal import Terminal

    chosen = chosen_loggers(names)
    opening = LoggerContext(run=run, start=start, config=config or {})
    loggers: list[Logger] = [] if quiet else [Terminal()]
    # Before those that draw what it holds.
    loggers.append(JsonLines(run, start))
    for name in chosen:
        adapter = LOGGERS[name]
        try:
            if adapter.aside:
                loggers.append(SubprocessLogger(name, adapter.maker, opening, patience=adapter.patience))
            else:
                loggers.append(Guarded(name, adapter.maker, opening))
        except OSError as error:  # no process to be had
            sys.stderr.write(f"warning: {name}: {error} (training goes on)\n")
    return loggers


class Guarded:
    """A logger in this process whose failures are told once and go no further."""

    def __init__(self, name: str, maker: str, opening: LoggerContext) -> None:
        self._name, self._told = name, False
        self._logger: Logger | None = None

        def make() -> None:
            module, _, attribute = maker.partition(":")
            self._logger = getattr(importlib.import_module(module), attribute)(opening)

        self._try(make)

    def log(self, record: Record) -> None:
        """Takes one line."""
        if self._logger is not None:
            self._try(self._logger.log, record)

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions."""
        if self._logger is not None:
            self._try(self._logger.picture, step, image)

    def close(self) -> None:
        """Writes out what is held back."""
        if self._logger is not None:
            self._try(self._logger.close)

    def _try(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001  of whatever kind: hours of training are not to be lost to a curve
            if not self._told:
                sys.stderr.write(f"warning: {self._name}: {error or type(error).__name__} (training goes on)\n")
            self._told = True


def _installed(adapter: Adapter) -> bool:
    # Files, not a folder that happens to be called so: `wandb/` beside a script is a namespace package to Python.
    found = importlib.util.find_spec(adapter.package)
    return found is not None and found.origin is not None
