"""Results of `gqn evaluate` that belong to a checkpoint, read back from a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gqn_data.errors import CheckpointError
from gqn_data.io import strict_json

_MOST_BYTES = 16 << 20
_METRICS = ("psnr", "ssim", "mae", "rmse")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Metrics of one kind of prediction with one number of context views.

    Attributes:
        context: number of context views.
        name: kind of prediction, or baseline.
        metrics: PSNR in dB, SSIM, MAE and RMSE on 0..255: (mean, standard error); None if undefined.
    """

    context: int
    name: str
    metrics: tuple[tuple[float | None, float | None], ...]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A result without the paths in it, which are private.

    Attributes:
        scene_set: scene set that the questions are about.
        split: train or test.
        scenes: number of scenes.
        samples: prior samples per scene; 0 for a model that predicts the mean.
        fingerprint: of the dataset; None if unknown.
        other: whether it is another dataset than in training.
        questions: digest of the questions.
        chosen_on_test: whether the checkpoint was chosen on test scenes.
        rows: metrics.
    """

    scene_set: str
    split: str
    scenes: int
    samples: int
    fingerprint: str | None
    other: bool
    questions: str
    chosen_on_test: bool
    rows: tuple[Row, ...]


def read_results(run: Path, step: int) -> list[Result]:
    """Return the results about a checkpoint, per dataset and split the one of the most scenes.

    Args:
        run: the run's folder.
        step: step of the checkpoint.

    Raises:
        CheckpointError: a result cannot be read.
    """
    best: dict[tuple[object, ...], Result] = {}
    for path in sorted((run / "evaluation").glob("result-*.json")):
        try:
            value = strict_json.read_json(path, _MOST_BYTES)
            result = _parse(value) if value["step"] == step else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: not a result of `gqn evaluate` ({type(error).__name__}: {error}); evaluate again or remove it"
            ) from error
        if result is not None:
            # Datasets without a train split lack a fingerprint: their questions distinguish them.
            key = result.fingerprint or result.questions, result.split
            best[key] = max(best.get(key, result), result, key=lambda one: (one.scenes, len(one.rows)))
    return list(best.values())


def _parse(value: dict[str, Any]) -> Result:
    dataset = value["dataset"]
    return Result(
        scene_set=str(value["scene_set"]),
        split=str(value["split"]),
        scenes=int(value["scenes"]),
        samples=int(value["samples"]),
        fingerprint=dataset["fingerprint"],
        other=(dataset["scene_set"], dataset["fingerprint"])
        != (dataset["trained_set"], dataset["trained_fingerprint"]),
        questions=str(value["questions"]),
        chosen_on_test=bool(value["chosen_on_test"]),
        rows=tuple(
            Row(
                context=int(point["context"]),
                name=str(score["name"]),
                metrics=tuple(_estimate(score[metric]) for metric in _METRICS),
            )
            for point in value["sweep"]
            for score in point["scores"]
        ),
    )


def _estimate(value: dict[str, Any]) -> tuple[float | None, float | None]:
    mean, error = value["mean"], value["error"]
    return None if mean is None else float(mean), None if error is None else float(error)
