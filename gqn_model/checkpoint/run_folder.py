"""`run.json`, the facts of a run beside its configuration: dataset, versions and commit."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gqn_data.errors import CheckpointError
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath

RUN_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run was made from, beside its configuration.

    Attributes:
        shards: the dataset as given, without login and query if it is a URL; an absolute path if it is local.
        scene_set: its name.
        fingerprint: the dataset's.
        versions: of Python, torch and this project.
        commit: of this project if it ran from a git checkout, with `+` if files were modified.
    """

    shards: str
    scene_set: str
    fingerprint: str
    versions: Mapping[str, str]
    commit: str = ""


def write_facts(run: Path, shards: AnyPath, scene_set: str, fingerprint: str) -> None:
    """Write `run.json` of a new run."""
    facts = RunFacts(
        shards=str(shards.absolute()),
        scene_set=scene_set,
        fingerprint=fingerprint,
        versions=versions(),
        commit=_commit(),
    )
    atomic.write_json(run / RUN_FILE, asdict(facts))


def read_facts(run: Path) -> RunFacts:
    """Read `run.json`.

    Raises:
        CheckpointError: the folder is not a run, or the file has other contents.
    """
    path = run / RUN_FILE
    try:
        return RunFacts(**strict_json.read_json(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{run}: {RUN_FILE} is missing, expected the folder of a `gqn train`") from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); restore it, or train again") from error


def versions() -> dict[str, str]:
    """Return the versions that a run may depend on."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("gqn-toolkit")
    except PackageNotFoundError:
        ours = "not installed"
    return {"python": platform.python_version(), "torch": torch.__version__, "gqn-toolkit": ours}


def _commit() -> str:
    """Return the commit of the checkout that this file is part of; empty outside a checkout or without git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        # An installed copy may lie inside the checkout of another project, which does not track this file.
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
