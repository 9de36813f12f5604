"""The questions of an evaluation: which scene, query and context views, written down and asked again.

A question names a scene, the view asked about and the context views in an order: with M context views the first M of
them are given. So the contexts of a sweep are nested, every number of context views is asked the same, and curves over
it compare. The choice is that of `sampling/views` for seed 0; the index, a JSON file with a checksum of its own, is
what is asked where it exists. Imports `gqn_data` alone, and torch not at all.
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

# So many context views are written down at least, where a scene has them: the most that the paper gives, in mazes.
_WRITTEN = 20

# Numbers in an index: as many as its file may have to be read again (`json_files.read_note`).
_MOST_NUMBERS = 2_000_000

# The numbers of context views that figures are told for, by the beginning of a set's name: those of the paper's
# figures and of Tobin et al. 2019, with one view at the lower end and more than were trained with at the upper.
_SWEEPS = {
    "rooms_": (1, 2, 3, 5, 9),
    "shepard_metzler_": (1, 3, 5, 7, 14),
    "jaco": (1, 3, 7),
    "mazes": (1, 5, 10, 20),
}
_OTHER_SETS = (1, 2, 3, 5, 9)


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """The questions of an evaluation: N of them.

    Attributes:
        scene_set: the set's name.
        fingerprint: the dataset's; it tells scenes apart, not containers.
        split: train or test.
        rows: int64 (N, 2 + K): numbers of the scene in the split, of the query view, of K context views in the order
            in which they are given. What the loader takes as `samples`.
    """

    scene_set: str
    fingerprint: str
    split: Split
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def most(self) -> int:
        """K, the largest number of context views that can be asked."""
        return int(self.rows.shape[1]) - 2

    @property
    def digest(self) -> str:
        """Eight characters that tell questions apart; runs with the same one were asked the same."""
        names = f"{self.scene_set} {self.fingerprint} {self.split} {self.rows.shape[1]} "
        return hashlib.sha256(names.encode() + np.ascontiguousarray(self.rows, "<i8").tobytes()).hexdigest()[:8]

    def samples(self, context: int) -> NDArray[np.int64]:
        """The questions with so many context views, int64 (N, 2 + context)."""
        return self.rows[:, : 2 + context]

    def first(self, scenes: int) -> Questions:
        """The first of them."""
        return Questions(
            scene_set=self.scene_set, fingerprint=self.fingerprint, split=self.split, rows=self.rows[:scenes]
        )


def default_sweep(scene_set: str, views: int) -> tuple[int, ...]:
    """The numbers of context views to measure with, where nobody says: the field's, as far as a scene has views.

    Args:
        scene_set: the set's name.
        views: views in a scene, one of which is the query.
    """
    numbers = next((sweep for start, sweep in _SWEEPS.items() if scene_set.startswith(start)), _OTHER_SETS)
    return tuple(number for number in numbers if number < views)


def check_sweep(context: Sequence[int], views: int) -> tuple[int, ...]:
    """The numbers of context views in rising order, each once, where a scene has so many.

    Raises:
        OptionError: it has not.
    """
    numbers = sorted(set(context))
    if not numbers or numbers[0] < 1 or numbers[-1] >= views:
        raise OptionError(
            f"context views {', '.join(map(str, context)) or 'none'}; possible: 1 to {views - 1}, for a scene has "
            f"{views} views and one is asked about"
        )
    return tuple(numbers)


def make_questions(
    *, scene_set: str, fingerprint: str, split: Split, scenes: int, views: int, most: int = 0
) -> Questions:
    """One question about each of the first scenes of a split.

    Args:
        scene_set: the set's name.
        fingerprint: the dataset's.
        split: train or test.
        scenes: how many.
        views: views in a scene.
        most: context views written down at the least; fewer choices are the beginnings of more.
    """
    context = min(views - 1, max(most, _WRITTEN))
    if scenes * (2 + context) > _MOST_NUMBERS:
        raise OptionError(
            f"{scenes} scenes with {context} context views; possible in one index: "
            f"{_MOST_NUMBERS // (2 + context)} scenes"
        )
    numbers = np.arange(scenes)
    chosen = choose_views(numbers, views=views, context=(context, context), seed=0, epoch=0).views
    rows = np.concatenate([numbers[:, None], chosen], 1)
    return Questions(scene_set=scene_set, fingerprint=fingerprint, split=split, rows=rows)


def write_index(path: Path, questions: Questions) -> None:
    """Writes the questions down, whole or not at all; two runs write the same bytes."""
    value = {
        "scene_set": questions.scene_set,
        "fingerprint": questions.fingerprint,
        "split": questions.split,
        "row": "scene, query view, context views in the order in which they are given",
        # a text a row: a number a line would make ten times the lines
        "rows": [" ".join(map(str, row)) for row in questions.rows.tolist()],
    }
    strict_json.write_note(path, value)


def read_index(path: Path) -> Questions:
    """The questions of an index.

    Raises:
        OptionError: it is absent, damaged, or none.
    """
    try:
        value = strict_json.read_note(path, needs_checksum=False)
        return _understood(value)
    except FileNotFoundError as error:
        raise OptionError(f"{path}: no such index; `gqn evaluate` writes one into a run's evaluation/") from error
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path}: is no index of an evaluation ({error}); restore it, or move it away to have it made anew"
        ) from error


def _understood(value: dict[str, Any]) -> Questions:
    lines, texts = value["rows"], [value[name] for name in ("scene_set", "fingerprint", "split")]
    if not all(isinstance(text, str) for text in texts) or value["split"] not in SPLITS:
        raise ValueError(f"it is of {texts}, expected a set, a fingerprint and a split")
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
        raise ValueError("its rows are no texts")
    rows = [[int(number) for number in line.split()] for line in lines]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < 3:
        raise ValueError("its rows are not all of scene, query and as many context views")
    if any(min(row) < 0 or max(row) >= 1 << 40 or len(set(row[1:])) != len(row) - 1 for row in rows):
        raise ValueError("a row names a view twice, or one that cannot be")
    if len({row[0] for row in rows}) != len(rows):
        # Figures have standard errors over scenes, and noise is that of a question.
        raise ValueError("a scene is asked about twice")
    scene_set, fingerprint, split = texts
    return Questions(scene_set=scene_set, fingerprint=fingerprint, split=split, rows=np.array(rows, np.int64))


def check_index(questions: Questions, path: Path, *, fingerprint: str, scenes: int, views: int, shards: str) -> None:
    """Returns where an index asks about a dataset.

    Args:
        questions: of the index.
        path: of the index, for the message.
        fingerprint: the dataset's.
        scenes: that the dataset's split has.
        views: views in a scene.
        shards: the dataset, for the message.

    Raises:
        RunMismatch: it asks about another one; figures would not compare.
    """
    if questions.fingerprint != fingerprint:
        raise RunMismatch(
            f"{path}: asks about the dataset {questions.fingerprint[:12]} ({questions.scene_set}), {shards} is "
            f"{fingerprint[:12]}; figures would not compare. Give the shards of that evaluation, or another index"
        )
    if int(questions.rows[:, 0].max()) >= scenes or int(questions.rows[:, 1:].max()) >= views:
        raise RunMismatch(
            f"{path}: names scene {questions.rows[:, 0].max()} and view {questions.rows[:, 1:].max()}; {shards} has "
            f"{scenes} {questions.split} scenes of {views} views. Restore the index, or move it away"
        )
