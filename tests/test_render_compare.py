"""The comparison of rendered frames with real ones: its figures, intervals and verdicts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("numba")

from benchmarks.render_compare import FIGURES, Sample, accepted, compare, figures, interval, summary
from gqn_data.render.write import render_scene_set

SET = "shepard_metzler_5_parts"


def sample(frames: NDArray[Any], sizes: float = 1500.0) -> Sample:
    return Sample(name="made", scene_set=SET, frames=frames.astype(np.uint8), sizes=np.full(frames.shape[:2], sizes))


def scenes_of(brightness: NDArray[np.float64], views: int) -> NDArray[Any]:
    """Return noise with one mean brightness per scene."""
    noise = np.random.default_rng(1).normal(0, 20, (len(brightness), views, 16, 16, 3))
    return np.clip(brightness[:, None, None, None, None] + noise, 0, 255)


def outside(real: Sample, ours: Sample) -> set[str]:
    rows, found = figures(real), summary(figures(ours))
    low, high = accepted(summary(rows), interval(rows))
    return {name for name, good in zip(FIGURES, (low <= found) & (found <= high)) if not good}


BRIGHTNESS = np.random.default_rng(0).normal(120, 8, 12)


def test_identical_frames_lie_inside():
    frames = scenes_of(BRIGHTNESS, 4)
    assert outside(sample(frames), sample(frames)) == set()


def test_a_shifted_channel_lies_outside_and_nothing_else_does():
    frames = scenes_of(BRIGHTNESS, 4)
    shifted = frames.copy()
    shifted[..., 1] += 12
    assert outside(sample(frames), sample(shifted)) == {"G"}


def test_more_contrast_lies_outside_in_deviations_and_edges():
    frames = scenes_of(BRIGHTNESS, 4)
    stretched = np.clip(120 + 1.5 * (frames - 120), 0, 255)
    assert outside(sample(frames), sample(stretched)) == {"dev R", "dev G", "dev B", "edges %"}


def test_bytes_may_differ_by_five_per_cent():
    frames = scenes_of(BRIGHTNESS, 4)
    assert outside(sample(frames), sample(frames, 1570.0)) == set()
    assert outside(sample(frames), sample(frames, 1590.0)) == {"JPEG bytes"}


def test_means_and_deviations_are_those_of_all_pixels():
    frames = scenes_of(BRIGHTNESS, 4)
    found = summary(figures(sample(frames)))
    pixels = frames.astype(np.uint8).reshape(-1, 3)
    assert found[:3] == pytest.approx(pixels.mean(axis=0))
    assert found[3:6] == pytest.approx(pixels.std(axis=0))


def test_intervals_are_drawn_over_scenes_not_over_views():
    """Against the normal interval of a mean of scenes, which more views of the same scenes hardly narrow."""
    for views in (2, 8):
        low, high = interval(figures(sample(scenes_of(BRIGHTNESS, views))))[:, 0]
        expected = 2 * 1.96 * BRIGHTNESS.std() / len(BRIGHTNESS) ** 0.5
        assert high - low == pytest.approx(expected, rel=0.15)
    one = interval(figures(sample(scenes_of(BRIGHTNESS[:1], 8))))
    assert one[0] == pytest.approx(one[1])


def verdicts(text: str) -> list[list[str]]:
    """Return the verdicts of each row of ours."""
    return [re.findall(r"\b(?:ok|OUT)\b", line) for line in text.splitlines() if line.startswith("ours")]


def test_records_that_we_rendered_compare_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for quality, last in ((95, "ok"), (60, "OUT")):  # the bytes of records are compared as they are
        root = tmp_path / str(quality)
        render_scene_set(root, SET, scenes=4, split="train", quality=quality, workers=1)
        compare(root / "raw", root / "sheets", 4, [SET, "jaco"])
        rows = verdicts(capsys.readouterr().out)
        assert len(rows) == 3  # all, even and odd scenes
        assert rows[0][-1] == last
        assert rows[0][:-1] == ["ok"] * 8 or last == "OUT"  # artefacts may be edges
        (sheet,) = (root / "sheets").iterdir()
        with Image.open(sheet) as picture:
            assert picture.size == (2 * 12 * 66, 2 * (2 * 4 * 66 + 8))
    compare(root / "raw", root / "sheets", 4, ["jaco"])
    assert verdicts(capsys.readouterr().out) == []
