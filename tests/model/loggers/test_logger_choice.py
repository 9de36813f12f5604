"""The choice of loggers, and errors of missing ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gqn_data.errors import OptionError
from gqn_model import loggers
from gqn_model.config import declarations, resolve
from gqn_model.loggers import LOGGERS, chosen_loggers, open_loggers, subprocess_logger


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create an empty folder; packages of loggers are found only there."""
    folder = tmp_path / "packages"
    folder.mkdir()
    found = loggers.importlib.util.find_spec

    def only_here(name: str) -> Any:
        from importlib.machinery import PathFinder

        is_package = name in {adapter.package for adapter in LOGGERS.values()}
        return PathFinder.find_spec(name, [str(folder)]) if is_package else found(name)

    monkeypatch.setattr(loggers.importlib.util, "find_spec", only_here)
    return folder


def _install(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()


def test_auto_takes_loggers_without_server_or_account(packages: Path) -> None:
    assert chosen_loggers("auto") == []
    _install(packages, *(adapter.package for adapter in LOGGERS.values()))
    assert chosen_loggers("auto") == ["tensorboard"]
    assert chosen_loggers("auto,visdom") == ["tensorboard", "visdom"]
    assert chosen_loggers("wandb,trackio") == ["wandb", "trackio"]
    assert chosen_loggers("none") == []


def test_a_run_without_memory_for_a_process_trains_without_the_logger(
    packages: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_process(*arguments: Any, **options: Any) -> None:
        raise BlockingIOError("fork failed")

    _install(packages, "visdom")
    monkeypatch.setattr(subprocess_logger.subprocess, "Popen", no_process)
    (only,) = open_loggers("visdom", packages, 0, quiet=True)
    only.close()
    assert "warning: visdom: fork failed (training continues)\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", LOGGERS)
def test_a_logger_without_its_package_names_the_install_command(packages: Path, name: str) -> None:
    with pytest.raises(OptionError, match=rf"'{name}'.*{re.escape(LOGGERS[name].install)}"):
        open_loggers(f"auto,{name}", packages, 0)
    assert list(packages.iterdir()) == []


def test_a_folder_with_the_name_of_a_package_is_not_a_package(packages: Path) -> None:
    (packages / "wandb").mkdir()  # as W&B leaves beside a script
    with pytest.raises(OptionError, match=r"'wandb'.*pip install"):
        chosen_loggers("wandb")


@pytest.mark.parametrize("value", ["tensorbord", "auto,tensorbord", "auto,,none", ""])
def test_an_unknown_logger_lists_the_possible_ones(value: str) -> None:
    for choose in (chosen_loggers, lambda names: resolve("tiny", (), {"logger": names})):
        with pytest.raises(OptionError, match="possible: auto, none, tensorboard, visdom, wandb, trackio"):
            choose(value)


def test_the_setting_logger_offers_every_logger() -> None:
    (one,) = (one for one in declarations() if one.name == "logger")
    assert one.choices == ("auto", "none", *LOGGERS)


def test_terminal_and_json_lines_are_always_on(tmp_path: Path) -> None:
    opened = open_loggers("none", tmp_path, 0)
    assert [type(one).__name__ for one in opened] == ["Terminal", "JsonLines"]
    opened[1].close()
    (only,) = open_loggers("none", tmp_path, 0, quiet=True)
    only.close()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["-v"], "auto,visdom"),
        (["-v", "--logger", "wandb"], "wandb,visdom"),
        (["--logger", "wandb,trackio"], "wandb,trackio"),
    ],
)
def test_v_adds_visdom_to_the_chosen_loggers(
    monkeypatch: pytest.MonkeyPatch, bars: Path, options: list[str], names: str
) -> None:
    from gqn_model.cli import main as gqn
    from gqn_model.train import run

    seen = []

    def start_run(shards: str, config: Any, **rest: Any) -> Path:
        seen.append(config.training.logger)
        return Path("run")

    monkeypatch.setattr(run, "start_run", start_run)
    done = CliRunner().invoke(gqn, ["train", "--shards", str(bars), "--preset", "tiny", *options])
    assert done.exit_code == 0, done.output
    assert seen == [names]


def test_help_does_not_import_packages_of_loggers() -> None:
    code = (
        "import sys\n"
        "from gqn_model.cli import main as gqn\n"
        "try:\n    gqn(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'numpy', 'PIL', 'tensorboard', 'visdom', 'wandb', 'trackio'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
