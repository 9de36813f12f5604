"""`config.json`, the settings of a run, `run.json`, its other facts, and `held-out.json`, scenes out of training.

torch is not imported, so that a command finds a wrong folder or dataset before it loads torch.
"""

from __future__ import annotations

import os
import platform
import reprlib
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gqn_data.dataset import open_dataset
from gqn_data.errors import CheckpointError, DestinationError, OptionError, RunMismatch
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath, DatasetPath, parse_dataset_path
from gqn_data.schema.catalog import SPLITS, Split
from gqn_model.checkpoint.best import read_best
from gqn_model.config import Config

CONFIG_FILE, RUN_FILE, HELD_OUT_FILE = "config.json", "run.json", "held-out.json"

# Each takes a few kilobytes.
_MOST_BYTES = 1 << 20


def write_config(run: Path, config: Config) -> None:
    """Write the resolved configuration into the run's folder."""
    atomic.write_json(run / CONFIG_FILE, config.to_json())


def read_config(run: AnyPath) -> Config:
    """Read the configuration of a run.

    Raises:
        CheckpointError: the folder is not a run.
        OptionError: the file has other contents.
    """
    path = run / CONFIG_FILE
    try:
        return Config.from_json(strict_json.read_json(path, _MOST_BYTES), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{run}: {CONFIG_FILE} is missing, expected the folder of a `gqn train`") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); restore it, or train again") from error


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run was made from, beside its configuration.

    Attributes:
        shards: the dataset as given, without login and query if it is a URL; an absolute path if it is local; empty in
            a run from the hub whose dataset was not published.
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


def run_labels(runs: Sequence[Path]) -> list[str]:
    """Return the names of the runs' folders, or the paths of those with equal names."""
    names = [run.resolve().name for run in runs]
    count = Counter(names)
    return [name if count[name] == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def check_distinct(runs: Sequence[Path]) -> None:
    """Raise unless there is at least one run, and each is given once.

    Raises:
        OptionError: `runs` is empty, or one is given twice.
    """
    if not runs or len({run.resolve() for run in runs}) < len(runs):
        raise OptionError(f"runs are {', '.join(map(str, runs)) or 'none'}, expected at least one, and each once")


def check_links(run: Path) -> None:
    """Raise if a folder in a run is a link that leads out of the run; a run from a stranger may hold one.

    Raises:
        DestinationError: files written into that folder would lie elsewhere.
    """
    home = run.resolve()
    for parent, folders, _ in os.walk(run):
        for path in (Path(parent, name) for name in folders):
            if path.is_symlink() and not (target := path.resolve()).is_relative_to(home):
                raise DestinationError(
                    f"{path}: found a link to {target}, expected a folder in the run. Move the folder there, or remove "
                    "the link"
                )


def write_facts(run: Path, shards: DatasetPath, scene_set: str, fingerprint: str) -> None:
    """Write `run.json` of a new run."""
    facts = RunFacts(
        shards=str(shards.absolute()),
        scene_set=scene_set,
        fingerprint=fingerprint,
        versions=versions(),
        commit=_commit(),
    )
    atomic.write_json(run / RUN_FILE, asdict(facts))


def check_encodable(*paths: DatasetPath) -> None:
    """Raise unless the JSON files of a run can hold the paths.

    Raises:
        OptionError: a path is not UTF-8.
    """
    for path in (str(path.absolute()) for path in paths):
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise OptionError(
                f"{path!a}: not UTF-8, expected a path that a JSON file can hold; rename it, or pass a link to it"
            ) from error


def read_facts(run: AnyPath) -> RunFacts:
    """Read `run.json`.

    Raises:
        CheckpointError: the folder is not a run, or the file has other contents.
    """
    path = run / RUN_FILE
    try:
        facts = RunFacts(**strict_json.read_json(path, _MOST_BYTES))
        for name, found in vars(facts).items():
            kind = dict if name == "versions" else str
            if not isinstance(found, kind):
                raise TypeError(f"{name} is {reprlib.repr(found)}, expected {kind.__name__}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{run}: {RUN_FILE} is missing, expected the folder of a `gqn train`") from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); restore it, or train again") from error
    return facts


def trained_shards(run: Path) -> DatasetPath:
    """Return the dataset that a run was trained on.

    Raises:
        CheckpointError: the folder is not a run.
        OptionError: the run does not say.
    """
    facts = read_facts(run)
    if not facts.shards:
        raise OptionError(
            f"{run}: the dataset of its training was not published, expected --shards PATH with scenes of "
            f"{facts.scene_set}"
        )
    return parse_dataset_path(facts.shards)


def write_held_out(run: Path, split: Split, scenes: Sequence[int]) -> None:
    """Write `held-out.json`: the scenes that choose the best checkpoint, of train unless the run holds none out."""
    atomic.write_json(run / HELD_OUT_FILE, {"split": split, "scenes": list(scenes)})


def best_chosen_on_test(run: Path) -> bool:
    """Return whether test scenes chose the best checkpoint, as in runs of versions before 0.3.

    Raises:
        CheckpointError: `best.json` or `held-out.json` is damaged.
    """
    best = read_best(run)
    if best is None or best.score.prior_psnr is None:
        return False
    path = run / HELD_OUT_FILE
    try:
        split = strict_json.read_json(path, _MOST_BYTES)["split"]
        if split not in SPLITS:
            raise ValueError(f"split is {reprlib.repr(split)}")
    except FileNotFoundError:
        return True
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}), expected a split and scenes; restore it") from error
    return bool(split == "test")


def describe_finished(run: Path, step: int) -> str:
    """Return the message about a finished run, with the command that trains it longer."""
    longer = shlex.join(["gqn", "train", "--resume", str(run), "--steps", str(max(2 * step, 1))])
    return f"run {run}: finished at step {step}; train it longer with more steps: {longer}"


@dataclass(frozen=True, kw_only=True)
class DatasetMatch:
    """A dataset next to the one that a run was trained on.

    Attributes:
        scene_set: name of the dataset's scene set.
        fingerprint: fingerprint of its train split; None without one, as nothing can be compared then.
        trained_set: name of the scene set of the training.
        trained_fingerprint: fingerprint of the train split of the training.
    """

    scene_set: str
    fingerprint: str | None
    trained_set: str
    trained_fingerprint: str

    @property
    def other(self) -> bool:
        """Whether the scenes are known to differ from those of the training."""
        return self.scene_set != self.trained_set or self.fingerprint not in (None, self.trained_fingerprint)

    @property
    def suffix(self) -> str:
        """Suffix for names of files about another dataset; empty for the dataset of the training."""
        return f"-{(self.fingerprint or self.scene_set)[:8]}" if self.other else ""

    def __str__(self) -> str:
        found, trained = self.fingerprint or "without a train split", self.trained_fingerprint
        return f"{self.scene_set} ({found[:12]}), trained on {self.trained_set} ({trained[:12]})"


def match_dataset(
    shards: str | DatasetPath, trained_set: str, trained_fingerprint: str, *, other_set: bool = False
) -> DatasetMatch:
    """Compare a dataset with the one that a run was trained on.

    Args:
        shards: the dataset.
        trained_set: name of the scene set of the training.
        trained_fingerprint: fingerprint of the training's dataset.
        other_set: allow another scene set.

    Raises:
        RunMismatch: the scene set differs, and `other_set` is False.
        GQNError: the dataset cannot be opened.
    """
    manifest = open_dataset(shards).manifest
    if manifest.scene_set != trained_set and not other_set:
        raise RunMismatch(
            f"{shards}: scenes of {manifest.scene_set}, expected {trained_set} as in training; "
            "pass --other-set to use another scene set"
        )
    return DatasetMatch(
        scene_set=manifest.scene_set,
        fingerprint=manifest.fingerprint("train") if "train" in manifest.splits else None,
        trained_set=trained_set,
        trained_fingerprint=trained_fingerprint,
    )


def versions() -> dict[str, str]:
    """Return the versions that a run may depend on."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("gqn-toolkit")
    except PackageNotFoundError:
        ours = "not installed"
    import torch

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
