"""Loggers of a training: one file per logger, one interface, one dict that names them.

The terminal and `log.jsonl` are always on. Each other logger needs a package, which is imported when the logger is
opened: the configuration reads the names from here. docs/training.md explains the metrics.

To add a logger, write a class with `log`, `picture` and `close`, and add a line to `LOGGERS`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.errors import ExtraMissing, OptionError, install_hint
from gqn_data.progress import message
from gqn_model.loggers.record import Logger, LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LOGGERS", "Adapter", "Logger", "LoggerContext", "Record", "check_loggers", "chosen_loggers", "open_loggers"]


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A logger that needs a package.

    Attributes:
        package: name of the package.
        factory: class of the logger, as `module:class`.
        install: command that installs the package.
        subprocess: run it in a separate process, as clients of servers need.
        auto: `auto` includes it: it needs neither server nor account, and writes only into the run's folder.
        timeout: seconds that the end of a training waits for it.
    """

    package: str
    factory: str
    install: str
    subprocess: bool = True
    auto: bool = False
    timeout: float = 10.0


LOGGERS: dict[str, Adapter] = {
    "tensorboard": Adapter(
        package="tensorboard",
        factory="gqn_model.loggers.tensorboard:TensorBoard",
        install=install_hint("tensorboard"),
        subprocess=False,
        auto=True,
    ),
    "visdom": Adapter(
        package="visdom",
        factory="gqn_model.loggers.visdom:Visdom",
        # Its setup needs pkg_resources, which newer versions of setuptools lack.
        install='pip install "setuptools<81" wheel && pip install --no-build-isolation visdom',
    ),
    "wandb": Adapter(
        package="wandb",
        factory="gqn_model.loggers.wandb:WandB",
        install=install_hint("wandb"),
        timeout=30.0,
    ),
    "trackio": Adapter(
        package="trackio",
        factory="gqn_model.loggers.trackio:Trackio",
        install=install_hint("trackio"),
        timeout=30.0,
    ),
    "viewer": Adapter(
        package="viser",
        factory="gqn_model.viewer.live:LiveViewer",
        install=install_hint("viewer"),
    ),
}


def chosen_loggers(names: str) -> list[str]:
    """Return the names of the chosen optional loggers, in the order of `LOGGERS`.

    Args:
        names: comma-separated; `auto` adds the installed ones that need neither server nor account, `none` adds none.

    Raises:
        ExtraMissing: the package of a logger is not installed.
        OptionError: a name is unknown.
    """
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in ("auto", "none", *LOGGERS)]
    if unknown:
        raise OptionError(f"logger is {unknown[0]!r}; possible: {', '.join(('auto', 'none', *LOGGERS))}")
    for name in wanted:
        if name in LOGGERS and not _installed(LOGGERS[name]):
            raise ExtraMissing(
                f"logger is {name!r}, but the package {LOGGERS[name].package} is not installed; "
                f"omit the logger, or install it with: {LOGGERS[name].install}"
            )
    return [
        name
        for name, adapter in LOGGERS.items()
        if name in wanted or ("auto" in wanted and adapter.auto and _installed(adapter))
    ]


def check_loggers(names: str) -> None:
    """Raise unless `open_loggers` could open them; called on every rank, before anything is written.

    Raises:
        ExtraMissing: the package of a logger is not installed.
        OptionError: a name is unknown.
    """
    chosen_loggers(names)


def open_loggers(
    names: str, run: Path, start: int, *, quiet: bool = False, config: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Logger]:
    """Open the loggers of a run: terminal, `log.jsonl` and the chosen optional ones.

    Args:
        names: optional loggers, as in `chosen_loggers`.
        run: the run's folder.
        start: step at which the training starts or resumes.
        quiet: omit the terminal.
        config: resolved configuration, as `Config.to_json` returns it. Loggers show it once and read their settings
            from it.

    Raises:
        ExtraMissing: the package of a logger is not installed.
        OptionError: a name is unknown.
    """
    from gqn_model.loggers.json_lines import JsonLines
    from gqn_model.loggers.subprocess_logger import SubprocessLogger
    from gqn_model.loggers.terminal import Terminal

    chosen = chosen_loggers(names)
    context = LoggerContext(run=run, start=start, config=config or {})
    loggers: list[Logger] = [] if quiet else [Terminal()]
    # First, because others draw the content of the file.
    loggers.append(JsonLines(run, start))
    for name in chosen:
        adapter = LOGGERS[name]
        try:
            if adapter.subprocess:
                loggers.append(SubprocessLogger(name, adapter.factory, context, timeout=adapter.timeout))
            else:
                loggers.append(SafeLogger(name, adapter.factory, context))
        except OSError as error:  # the process could not be started
            message(f"warning: {name}: {error} (training continues)")
    return loggers


class SafeLogger:
    """Run a logger in this process; its first failure becomes a warning, later ones are ignored.

    Args:
        name: name of the logger, for the warning.
        factory: class of the logger, as `module:class`; it is called with the context.
        context: the run.
    """

    def __init__(self, name: str, factory: str, context: LoggerContext) -> None:
        self._name, self._warned = name, False
        self._logger: Logger | None = None

        def create() -> None:
            module, _, attribute = factory.partition(":")
            self._logger = getattr(importlib.import_module(module), attribute)(context)

        self._try(create)

    def log(self, record: Record) -> None:
        """Log the metrics of one line."""
        if self._logger is not None:
            self._try(self._logger.log, record)

    def picture(self, step: int, image: Image) -> None:
        """Log a picture of predictions."""
        if self._logger is not None:
            self._try(self._logger.picture, step, image)

    def close(self) -> None:
        """Flush and close the logger."""
        if self._logger is not None:
            self._try(self._logger.close)

    def _try(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001  any: hours of training must not end because of a curve
            if not self._warned:
                message(f"warning: {self._name}: {error or type(error).__name__} (training continues)")
            self._warned = True


def _installed(adapter: Adapter) -> bool:
    # A package with files: Python also finds a folder `wandb/` beside a script, as a namespace package.
    found = importlib.util.find_spec(adapter.package)
    return found is not None and found.origin is not None
