"""Which loggers a run has, and what is said where one cannot be had."""

from __future__ import annotations

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
    """A folder of packages, and no other that a logger needs."""
    folder = tmp_path / "packages"
    folder.mkdir()
    found = loggers.importlib.util.find_spec

    def here_alone(name: str) -> Any:
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [str(folder)]) if name in LOGGERS else found(name)

    monkeypatch.setattr(loggers.importlib.util, "find_spec", here_alone)
    return folder


def _install(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()


def test_auto_takes_what_needs_neither_server_nor_account(packages: Path) -> None:
    assert chosen_loggers("auto") == []
    _install(packages, *LOGGERS)
    assert chosen_loggers("auto") == ["tensorboard"]
    assert chosen_loggers("auto,visdom") == ["tensorboard", "visdom"]
    assert chosen_loggers("wandb,trackio") == ["wandb", "trackio"]
    assert chosen_loggers("none") == []


def test_a_machine_without_room_for_another_process_trains_without_the_logger(
    packages: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_process(*arguments: Any, **options: Any) -> None:
        raise BlockingIOError("no process to be had")

    _install(packages, "visdom")
    monkeypatch.setattr(subprocess_logger.subprocess, "Popen", no_process)
    (only,) = open_loggers("visdom", packages, 0, quiet=True)
    only.close()
    assert "visdom: no process to be had (training goes on)" in capsys.readouterr().err


@pytest.mark.parametrize("name", LOGGERS)
def test_a_logger_whose_package_is_absent_says_what_to_type(packages: Path, name: str) -> None:
    with pytest.raises(OptionError, match=rf"'{name}', but the package {name} is not installed; .*pip install"):
        open_loggers(f"auto,{name}", packages, 0)
    assert list(packages.iterdir()) == []


def test_a_folder_called_like_a_package_is_none(packages: Path) -> None:
    (packages / "wandb").mkdir()  # as W&B itself leaves beside a script
    with pytest.raises(OptionError, match="not installed"):
        chosen_loggers("wandb")


@pytest.mark.parametrize("value", ["tensorbord", "auto,tensorbord", "auto,,none", ""])
def test_an_unknown_logger_says_what_is_possible(value: str) -> None:
    for ask in (chosen_loggers, lambda names: resolve("tiny", (), {"logger": names})):
        with pytest.raises(OptionError, match="possible: auto, none, tensorboard, visdom, wandb, trackio"):
            ask(value)


def test_the_configuration_names_every_logger() -> None:
    (one,) = (one for one in declarations() if one.name == "logger")
    assert one.choices == ("auto", "none", *LOGGERS)


def test_terminal_and_json_lines_are_always_there(tmp_path: Path) -> None:
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
def test_v_is_visdom_beside_what_else_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: list[str], names: str
) -> None:
    from gqn_model.cli import main as gqn
    from gqn_model.train import run

    seen = []

    def start_run(shards: str, config: Any, **rest: Any) -> Path:
        seen.append(config.training.logger)
        return Path("run")

    monkeypatch.setattr(run, "start_run", start_run)
    done = CliRunner().invoke(gqn, ["train", "--shards", "x", "--preset", "tiny", *options])
    assert done.exit_code == 0, done.output
    assert seen == [names]


def test_help_imports_no_package_of_a_logger() -> None:
    code = (
        "import sys\n"
        "from gqn_model.cli import main as gqn\n"
        "try:\n    gqn(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'numpy', 'PIL', 'tensorboard', 'visdom', 'wandb', 'trackio'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
