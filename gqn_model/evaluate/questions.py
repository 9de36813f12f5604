"""Questions of an evaluation (scene, query view, context views), and the index file that stores them.

A question has an ordered list of context views; with M context views the network observes the first M. So the contexts
of a sweep are nested, all numbers of context views share the questions, and curves over M are comparable. Views are
chosen by `sampling/views` with seed 0. The index is a JSON file with a checksum; if it exists, its questions are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import OptionError, RunMismatch
from gqn_data.io import strict_json
from gqn_data.sampling.views import choose_views
from gqn_data.schema.catalog import SPLITS, Split

# An index stores at least this number of context views, if scenes have as many: the paper's largest number, in mazes.
_MIN_CONTEXT = 20

# Limit of the numbers in an index, so that the file stays within the limit of `strict_json.read_note`.
_MAX_NUMBERS = 2_000_000

# Numbers of context views by prefix of the set's name: those of the paper's plots and of Tobin et al. 2019, from one
# view to more than in training.
_SWEEPS = {
    "rooms_": (1, 2, 3, 5, 9),
    "shepard_metzler_": (1, 3, 5, 7, 14),
    "jaco": (1, 3, 7),
    "mazes": (1, 5, 10, 20),
}
_OTHER_SETS = (1, 2, 3, 5, 9)


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """N questions of an evaluation.

    Attributes:
        scene_set: name of the scene set.
        fingerprint: fingerprint of the dataset: it depends on the scenes, not on the container.
        split: train or test.
        rows: int64 (N, 2 + K): scene in the split, query view, K context views in order; the loader's `samples`.
    """

    scene_set: str
    fingerprint: str
    split: Split
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def max_context(self) -> int:
        """K, the largest possible number of context views."""
        return int(self.rows.shape[1]) - 2

    @property
    def digest(self) -> str:
        """Eight characters of a hash; evaluations with equal digests have the same questions."""
        names = f"{self.scene_set} {self.fingerprint} {self.split} {self.rows.shape[1]} "
        return hashlib.sha256(names.encode() + np.ascontiguousarray(self.rows, "<i8").tobytes()).hexdigest()[:8]

    def samples(self, context: int) -> NDArray[np.int64]:
        """Return the rows with the first `context` context views, int64 (N, 2 + context)."""
        return self.rows[:, : 2 + context]

    def first(self, scenes: int) -> Questions:
        """Return the first `scenes` questions."""
        return Questions(
            scene_set=self.scene_set, fingerprint=self.fingerprint, split=self.split, rows=self.rows[:scenes]
        )


def default_sweep(scene_set: str, views: int) -> tuple[int, ...]:
    """Return the numbers of context views usually reported for a set, as far as scenes have the views.

    Args:
        scene_set: name of the scene set.
        views: views per scene, one of them the query.
    """
    numbers = next((sweep for start, sweep in _SWEEPS.items() if scene_set.startswith(start)), _OTHER_SETS)
    return tuple(number for number in numbers if number < views)


def check_sweep(context: Sequence[int], views: int) -> tuple[int, ...]:
    """Return the numbers of context views sorted, without duplicates.

    Args:
        context: numbers of context views.
        views: views per scene, one of them the query.

    Raises:
        OptionError: `context` is empty, or a number is not from 1 to views - 1.
    """
    numbers = sorted(set(context))
    if not numbers or numbers[0] < 1 or numbers[-1] >= views:
        raise OptionError(
            f"context views {', '.join(map(str, context)) or 'none'}; possible: 1 to {views - 1}, because a scene "
            f"has {views} views and one is the query"
        )
    return tuple(numbers)


def make_questions(
    *, scene_set: str, fingerprint: str, split: Split, scenes: int, views: int, context: int = 0
) -> Questions:
    """Choose one question for each of the first scenes of a split.

    Args:
        scene_set: name of the scene set.
        fingerprint: fingerprint of the dataset.
        split: train or test.
        scenes: number of scenes.
        views: views per scene.
        context: context views to store, at least; fewer views are the first of more.

    Raises:
        OptionError: the index would become too large.
    """
    context = min(views - 1, max(context, _MIN_CONTEXT))
    if scenes * (2 + context) > _MAX_NUMBERS:
        raise OptionError(
            f"{scenes} scenes with {context} context views; possible in one index: at most "
            f"{_MAX_NUMBERS // (2 + context)} scenes"
        )
    numbers = np.arange(scenes)
    chosen = choose_views(numbers, views=views, context=(context, context), seed=0, epoch=0).views
    rows = np.concatenate([numbers[:, None], chosen], 1)
    return Questions(scene_set=scene_set, fingerprint=fingerprint, split=split, rows=rows)


def write_index(path: Path, questions: Questions) -> None:
    """Write the questions atomically; equal questions give identical bytes."""
    value = {
        "scene_set": questions.scene_set,
        "fingerprint": questions.fingerprint,
        "split": questions.split,
        # Part of the checksum of existing files.
        "row": "scene, query view, context views in the order in which they are given",
        # One string per row: with one number per line the file would have ten times the lines.
        "rows": [" ".join(map(str, row)) for row in questions.rows.tolist()],
    }
    strict_json.write_note(path, value)


def read_index(path: Path) -> Questions:
    """Read the questions of an index.

    Raises:
        OptionError: the file is missing, damaged, or not an index.
    """
    try:
        value = strict_json.read_note(path, needs_checksum=False)
        return _parse(value)
    except FileNotFoundError as error:
        hint = "`gqn evaluate` writes one into a run's evaluation/"
        raise OptionError(f"{path}: missing, expected an index; {hint}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path}: not an index of an evaluation ({error}); restore it, or move it away to create another"
        ) from error


def _parse(value: dict[str, Any]) -> Questions:
    """Return the questions of a parsed index.

    Raises:
        ValueError, KeyError, TypeError: an entry is missing or impossible.
    """
    lines, texts = value["rows"], [value[name] for name in ("scene_set", "fingerprint", "split")]
    if not all(isinstance(text, str) for text in texts) or value["split"] not in SPLITS:
        raise ValueError(f"found {texts}, expected a scene set, a fingerprint and a split")
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
        raise ValueError("rows are not a list of strings")
    rows = [[int(number) for number in line.split()] for line in lines]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < 3:
        raise ValueError("rows differ in length, or have less than scene, query and one context view")
    if any(min(row) < 0 or max(row) >= 1 << 40 or len(set(row[1:])) != len(row) - 1 for row in rows):
        raise ValueError("a row has a view twice, or an impossible number")
    if len({row[0] for row in rows}) != len(rows):
        # Standard errors are over scenes, so scenes must differ.
        raise ValueError("a scene has two questions")
    scene_set, fingerprint, split = texts
    return Questions(scene_set=scene_set, fingerprint=fingerprint, split=split, rows=np.array(rows, np.int64))


def check_index(questions: Questions, path: Path, *, fingerprint: str, scenes: int, views: int, shards: str) -> None:
    """Raise unless an index belongs to a dataset.

    Args:
        questions: questions of the index.
        path: the index, for the message.
        fingerprint: fingerprint of the dataset.
        scenes: scenes in the dataset's split.
        views: views per scene.
        shards: the dataset, for the message.

    Raises:
        RunMismatch: it belongs to another dataset: results would not be comparable.
    """
    if questions.fingerprint != fingerprint:
        raise RunMismatch(
            f"{path}: an index of the dataset {questions.fingerprint[:12]} ({questions.scene_set}), expected "
            f"{fingerprint[:12]} as in {shards}; pass the index's dataset with --shards, or another --index"
        )
    if int(questions.rows[:, 0].max()) >= scenes or int(questions.rows[:, 1:].max()) >= views:
        raise RunMismatch(
            f"{path}: has scene {questions.rows[:, 0].max()} and view {questions.rows[:, 1:].max()}, expected fewer "
            f"than the {scenes} {questions.split} scenes of {views} views in {shards}; restore it, or move it away"
        )
