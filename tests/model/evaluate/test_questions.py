"""Evaluations: the questions, their index, and that metrics depend on nothing else."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault_counts import FaultCounts
from skimage.metrics import structural_similarity

from gqn_data.errors import OptionError, RunMismatch
from gqn_data.loader import SceneLoader
from gqn_data.sampling.permutation import key
from gqn_model import load_model
from gqn_model.config import ModelConfig
from gqn_model.evaluate.questions import (
    Questions,
    check_sweep,
    default_sweep,
    make_questions,
    read_index,
    write_index,
)
from gqn_model.evaluate.report import BASELINES, Evaluation
from gqn_model.evaluate.run_evaluation import SIGMA, evaluate, question_noise
from gqn_model.model.inputs import to_device
from gqn_model.model.noise import PRIOR

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(bars_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the run, so that other tests do not see the files written into it."""
    return Path(shutil.copytree(bars_run, tmp_path_factory.mktemp("runs") / "bars"))


@pytest.fixture(scope="module")
def found(run: Path, bars: Path) -> Evaluation:
    return evaluate(run, str(bars), context=[1, 3, 5], samples=3)


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _numbers(part, f"{path}/{name}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _numbers(part, f"{path}/{index}")
    elif isinstance(value, float):
        yield path, value


def _same(one: Evaluation, other: Evaluation) -> bool:
    pairs = zip(_numbers(one.to_json()["sweep"]), _numbers(other.to_json()["sweep"]), strict=True)
    return all(a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-4, abs_tol=1e-6) for a, b in pairs)


def test_queries_are_not_in_their_nested_contexts(found: Evaluation, bars: Path) -> None:
    questions = read_index(Path(found.index))
    assert questions.rows[:, 0].tolist() == list(range(10))
    assert len({tuple(row) for row in questions.rows[:, 1:].tolist()}) == 10
    for row in questions.rows.tolist():
        assert len(set(row[1:])) == len(row) - 1
    # The loader's views for fewer context views are the first of those for more.
    batches = {}
    for context in (1, 3, 5):
        loader = SceneLoader(
            bars, split="test", batch_size=10, samples=questions.samples(context), epochs=1, frame_size=16
        )
        batches[context] = next(iter(loader))
        loader.close()
    for fewer, more in ((1, 3), (3, 5)):
        assert torch.equal(batches[fewer].frames, batches[more].frames[:, : 1 + fewer])
        assert torch.equal(batches[fewer].views, batches[more].views[:, : 1 + fewer])


def test_metrics_equal_those_computed_question_by_question(found: Evaluation, run: Path, bars: Path) -> None:
    # An independent oracle: no batches, plain predictions, numpy and scikit-image.
    model, questions = load_model(run), read_index(Path(found.index))
    loader = SceneLoader(bars, split="test", batch_size=1, samples=questions.samples(3), epochs=1, frame_size=16)
    predictions: dict[str, list[tuple[float, float]]] = {}
    losses, best, similarities = [], [], []
    for batch in loader:
        inputs = to_device(batch, CPU)
        scene, query = int(batch.scenes[0]), int(batch.views[0, 0])
        truth = inputs.target[0].double().numpy()

        def put(name: str, frame: torch.Tensor, truth: np.ndarray = truth) -> float:
            difference = frame.double().clamp(0, 1).numpy() - truth
            errors = float(np.abs(difference).mean()), float((difference**2).mean())
            predictions.setdefault(name, []).append(errors)
            return errors[1]

        noise = question_noise(model.config, scene, query, 3)
        with torch.no_grad():
            drawn = [model.predict(inputs.context, inputs.query, noise[k][:, None])[0] for k in range(3)]
            put(
                "prior, mean latents",
                model.predict(inputs.context, inputs.query, torch.zeros_like(noise[0][:, None]))[0],
            )
            posterior = question_noise(model.config, scene, query, 1, stream=1)[0][:, None]
            losses.append(-float(model(inputs, SIGMA, posterior).value))
        errors = [put(f"sample {k}", frame) for k, frame in enumerate(drawn)]
        best.append(min(errors))
        put("prior mean", torch.stack([frame.clamp(0, 1) for frame in drawn]).mean(0))
        put(
            "nearest view",
            inputs.context.frames[
                0, int((batch.context_poses[0, :, :2] - batch.query_pose[0, :2]).norm(dim=-1).argmin())
            ],
        )
        similarities.append(
            structural_similarity(
                truth, drawn[1].double().clamp(0, 1).numpy(), gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, data_range=1.0, channel_axis=0,
            )
        )  # fmt: skip
    loader.close()
    at = found.at(3)
    for name in ("prior mean", "prior, mean latents", "nearest view"):
        mae, mse = np.array(predictions[name]).T
        score = at.score(name)
        assert score.mae.mean == pytest.approx(255 * mae.mean(), rel=1e-4)
        assert score.rmse.mean == pytest.approx(255 * np.sqrt(mse).mean(), rel=1e-4)
        assert score.psnr.mean == pytest.approx(-10 * np.log10(mse).mean(), abs=1e-3)
        assert score.psnr.error == pytest.approx(np.std(10 * np.log10(mse), ddof=1) / math.sqrt(10), rel=1e-3)
        assert score.psnr_of_mean_error.mean == pytest.approx(-10 * math.log10(mse.mean()), abs=1e-3)
    samples = np.array([predictions[f"sample {k}"] for k in range(3)])
    assert at.score("prior sample").rmse.mean == pytest.approx(255 * np.sqrt(samples[..., 1]).mean(), rel=1e-4)
    assert at.score("best of 3").psnr.mean == pytest.approx(-10 * np.log10(best).mean(), abs=1e-3)
    assert at.nats_per_dim.mean == pytest.approx(np.mean(losses) / 768, rel=1e-5)
    assert at.excess.mean == pytest.approx(np.mean(losses) - 768 * 0.5622636, abs=1e-2)
    assert sum(step.mean for step in at.kl_steps) == pytest.approx(at.kl.mean, rel=1e-6)
    assert abs(at.score("prior sample").ssim.mean - np.mean(similarities)) < 0.1  # of one of three samples


def test_metrics_do_not_depend_on_batches_or_workers(found: Evaluation, run: Path, bars: Path) -> None:
    for options in ({"batch_size": 1}, {"batch_size": 3, "workers": 2}):
        assert _same(evaluate(run, str(bars), context=[1, 3, 5], samples=3, **options), found)


def test_metrics_do_not_depend_on_the_rest_of_the_sweep(found: Evaluation, run: Path, bars: Path) -> None:
    single = evaluate(run, str(bars), context=3, samples=3)
    assert single.questions == found.questions
    assert single.at(3) == found.at(3)


def test_metrics_do_not_depend_on_the_order_of_questions_and_views(
    found: Evaluation, run: Path, bars: Path, tmp_path: Path
) -> None:
    questions = read_index(Path(found.index))
    rows = questions.rows.copy()
    rows[:, 2:7] = rows[:, [5, 3, 6, 2, 4]]
    rows = rows[[3, 1, 9, 0, 2, 7, 8, 4, 6, 5]]
    path = tmp_path / "permuted.json"
    permuted = Questions(scene_set="x", fingerprint=questions.fingerprint, split="test", rows=rows)
    write_index(path, permuted)
    other = evaluate(run, str(bars), context=5, samples=3, index=path, batch_size=4)
    assert other.questions != found.questions
    single = evaluate(run, str(bars), context=5, samples=3)
    assert _same(other, single)


def test_more_samples_lower_the_best_error_and_change_nothing_else(found: Evaluation, run: Path, bars: Path) -> None:
    best = [evaluate(run, str(bars), context=2, samples=count).at(2) for count in (1, 2, 6)]
    lowest = [at.score(f"best of {count}").rmse.mean for at, count in zip(best, (1, 2, 6))]
    assert lowest[0] > lowest[1] > lowest[2]
    assert best[0].excess == best[2].excess
    # By convexity the mean of samples is never worse than the samples.
    six = best[2]
    assert six.score("prior mean").psnr_of_mean_error.mean >= six.score("prior sample").psnr_of_mean_error.mean


def test_the_index_is_written_once_and_used_again(found: Evaluation, run: Path, bars: Path) -> None:
    path = Path(found.index)
    before = path.read_bytes()
    # As JSON, because NaN does not equal itself.
    assert evaluate(run, str(bars), context=[1, 3, 5], samples=3).to_json() == found.to_json()
    assert path.read_bytes() == before
    result = json.loads(Path(found.result).read_bytes())
    assert result == found.to_json()


def test_an_existing_index_is_used(found: Evaluation, bars_run: Path, bars: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bars_run, tmp_path / "other"))
    made = read_index(Path(found.index))
    stored = Questions(scene_set="x", fingerprint=made.fingerprint, split="test", rows=made.rows[[7, 5, 8, 6]])
    path = other / "evaluation" / "index-test-4.json"
    write_index(path, stored)
    before = path.read_bytes()
    result = evaluate(other, str(bars), context=1, samples=1, scenes=4)
    assert (result.index, result.questions) == (str(path), stored.digest)
    assert path.read_bytes() == before
    fewer = Questions(scene_set="x", fingerprint=made.fingerprint, split="test", rows=made.samples(2)[:4])
    write_index(path, fewer)
    with pytest.raises(OptionError, match=rf"{path}: 2 context views per question, expected at least 3"):
        evaluate(other, str(bars), context=3, samples=1, scenes=4)


def test_an_index_applies_to_another_run(found: Evaluation, bars_run: Path, bars: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bars_run, tmp_path / "other", ignore=shutil.ignore_patterns("evaluation"))
    questions = read_index(Path(found.index)).rows[[2, 5]]
    path = tmp_path / "few.json"
    few = Questions(scene_set="x", fingerprint=read_index(Path(found.index)).fingerprint, split="test", rows=questions)
    write_index(path, few)
    result = evaluate(other, str(bars), context=2, samples=1, index=path)
    assert (result.scenes, result.questions, result.index) == (2, few.digest, str(path))
    assert not (other / "evaluation" / "index-test-2.json").exists()
    assert evaluate(other, str(bars), context=2, samples=1, index=path, scenes=1).scenes == 1


def test_an_index_of_another_dataset_is_refused(found: Evaluation, run: Path, bars: Path, tmp_path: Path) -> None:
    questions = read_index(Path(found.index))
    far = questions.rows + np.array([9] + [0] * 10)
    for fingerprint, rows, words in (
        ("0" * 16, questions.rows, f"{'0' * 12}.*{questions.fingerprint[:12]}.*--shards"),
        (questions.fingerprint, far, "scene 18 .* 10 test scenes of 10 views"),
    ):
        changed = Questions(scene_set="x", fingerprint=fingerprint, split="test", rows=rows)
        path = tmp_path / "index.json"
        write_index(path, changed)
        with pytest.raises(RunMismatch, match=words):
            evaluate(run, str(bars), context=1, index=path)
    with pytest.raises(OptionError, match="split test, expected train"):
        evaluate(run, str(bars), context=1, index=Path(found.index), split="train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace('"1 ', '"2 ', 1), "checksum"),
        (lambda text: text[: len(text) // 2], "not an index"),
        (lambda text: '{"rows": ["0 1 2"]}', "'scene_set'"),
        (
            lambda text: '{"rows": ["0 1 1"], "split": "test", "fingerprint": "a", "scene_set": "b"}',
            "view twice",
        ),
        (
            lambda text: '{"rows": ["0 1 2", "0 2 3"], "split": "test", "fingerprint": "a", "scene_set": "b"}',
            "two questions",
        ),
        (lambda text: '{"rows": ["0 1 2", "1 2"], "split": "test", "fingerprint": "a", "scene_set": "b"}', "length"),
        (lambda text: '{"rows": ["0 1 2"], "split": "best", "fingerprint": "a", "scene_set": "b"}', "'best'"),
        (lambda text: "[]", "found list"),
    ],
)
def test_a_damaged_index_is_refused(
    found: Evaluation, run: Path, bars: Path, tmp_path: Path, change: Any, words: str
) -> None:
    path = tmp_path / "index.json"
    path.write_text(change(Path(found.index).read_text()))
    with pytest.raises(OptionError, match=words):
        evaluate(run, str(bars), context=1, index=path)


def test_the_default_sweep_is_the_usual_one_within_a_scenes_views(run: Path, bars: Path) -> None:
    assert default_sweep("rooms_ring_camera", 10) == (1, 2, 3, 5, 9)
    assert default_sweep("shepard_metzler_7_parts", 15) == (1, 3, 5, 7, 14)
    assert default_sweep("jaco", 11) == (1, 3, 7)
    assert default_sweep("mazes", 300) == (1, 5, 10, 20)
    assert default_sweep("rooms_ring_camera", 4) == (1, 2, 3)
    assert [at.context for at in evaluate(run, str(bars), scenes=2, samples=1).sweep] == [1, 2, 3, 5, 9]


def test_more_context_views_than_a_scene_has_are_refused(run: Path, bars: Path) -> None:
    with pytest.raises(OptionError, match="possible: 1 to 9"):
        evaluate(run, str(bars), context=[1, 10])
    assert check_sweep([5, 1, 5], 10) == (1, 5)


def test_an_index_stores_more_context_views_than_the_first_sweep() -> None:
    facts: dict[str, Any] = {"scene_set": "mazes", "fingerprint": "f", "split": "test", "scenes": 50, "views": 300}
    few, many = make_questions(**facts), make_questions(**facts, context=30)
    assert (few.max_context, many.max_context) == (20, 30)
    assert np.array_equal(few.rows, many.samples(20))
    with pytest.raises(OptionError, match=r"1000000 scenes with 20 context views; possible.*: at most 90909 scenes"):
        make_questions(**{**facts, "scenes": 1_000_000})


def test_noise_is_a_function_of_the_question() -> None:
    config = ModelConfig(frame_size=16, core_steps=3, latent=2)
    one = question_noise(config, 4, 7, 2)
    assert one.shape == (2, 3, 2, 4, 4)
    assert torch.equal(question_noise(config, 4, 7, 5)[:2], one)
    for other in ((5, 7), (4, 6), (7, 4)):
        assert not torch.equal(question_noise(config, *other, 2), one)
    assert not torch.equal(question_noise(config, 4, 7, 2, stream=1), one)


# 84 pixels give maps of 21 x 21, whose product with L and Z is odd; 8 pixels give fewer numbers than a block of torch.
@pytest.mark.parametrize(("frame_size", "core_steps", "latent"), [(84, 3, 3), (84, 12, 3), (20, 1, 1), (8, 1, 1)])
def test_fewer_samples_of_a_question_are_the_first_of_more(
    frame_size: int, core_steps: int, latent: int, faults: FaultCounts
) -> None:
    config = ModelConfig(frame_size=frame_size, core_steps=core_steps, latent=latent)
    more = question_noise(config, 4, 7, 9)
    equal = [torch.equal(question_noise(config, 4, 7, count), more[:count]) for count in range(1, 9)]
    faults.record(
        "found in use: noise of an evaluation with other numbers of samples",
        holds="fewer prior samples are the first of more, for every frame size",
        tries=len(equal),
        survived=sum(equal),
    )


@pytest.mark.parametrize(("frame_size", "count"), [(16, 1), (64, 8), (84, 16)])
def test_whole_blocks_of_noise_are_those_of_earlier_versions(frame_size: int, count: int) -> None:
    config = ModelConfig(frame_size=frame_size, core_steps=3, latent=3)
    side = frame_size // 4
    earlier = torch.randn((count, 3, 3, side, side), generator=torch.Generator().manual_seed(key(4, 7, PRIOR) >> 1))
    assert torch.equal(question_noise(config, 4, 7, count), earlier)


def test_the_table_names_predictions_metrics_and_limits(found: Evaluation) -> None:
    table = found.table()
    for words in (
        *BASELINES,
        "best of 3",
        "prior, mean latents",
        "of mean error",
        "SSIM",
        "trained with 2 to 3",
        "Only 10 scenes",
    ):
        assert words in table
    assert table.count(", outside the training range") == 2
    better = max(found.at(1).score(name).psnr.mean for name in BASELINES)
    assert found.at(1).lead("psnr") == pytest.approx(found.at(1).score("prior mean").psnr.mean - better)


def test_a_single_scene_has_metrics_without_standard_errors(run: Path, bars: Path) -> None:
    one = evaluate(run, str(bars), context=1, scenes=1, samples=1)
    text = Path(one.result).read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["sweep"][0]["excess"]["error"] is None
    assert "nan" not in one.table()
