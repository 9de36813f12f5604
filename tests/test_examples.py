"""The examples, run as programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_scenes import pattern

from gqn_data import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.import_photos import import_photos

ROOT = Path(__file__).resolve().parents[1]


def photo_folder(*arguments):
    return subprocess.run(
        [sys.executable, "examples/photo_folder.py", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )


@pytest.mark.parametrize("yaw_sign", [1, -1])
def test_photos_of_a_dataset_are_imported_with_its_cameras(yaw_sign, tmp_path):
    numbers = np.random.default_rng(3).uniform(-1, 1, (2, 5, 5)).astype(np.float32)
    geometry = {"field_of_view": 50.0, "yaw_sign": yaw_sign, "depth_range": (0.1, 3.0)}
    with SceneWriter(tmp_path / "set", **geometry) as writer:
        for scene, cameras in enumerate(numbers):
            writer.add(np.stack([pattern(scene, view, 40) for view in range(5)]), cameras)
    done = photo_folder(tmp_path / "set", tmp_path / "photos", "--scenes", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{tmp_path / 'photos'}: 2 scenes of 5 photos"]
    found = import_photos(
        tmp_path / "photos", tmp_path / "back", scale=1, up="z", test_every=0, size=32, depth_range=(0.1, 3), log=print
    )
    assert found.depth_range == pytest.approx((0.1, 3))
    # Of the right half of every other frame, four fifths are left.
    assert found.field_of_view == pytest.approx(np.degrees(2 * np.arctan(0.8 * np.tan(np.radians(25)))))
    for cameras, scene in zip(numbers, open_dataset(tmp_path / "back", "train")):
        np.testing.assert_allclose(scene.cameras[:, :3], cameras[:, :3] - cameras[:, :3].mean(0), atol=1e-5)
        np.testing.assert_allclose(scene.cameras[:, 3], yaw_sign * cameras[:, 3], atol=1e-5)
        np.testing.assert_allclose(scene.cameras[:, 4], cameras[:, 4], atol=1e-5)
    middle = [scene.frames[0][12:20, 12:20].mean((0, 1)) for scene in open_dataset(tmp_path / "back", "train")]
    wanted = [pattern(scene, 0, 40)[16:24, 16:24].mean((0, 1)) for scene in range(2)]
    np.testing.assert_allclose(middle, wanted, atol=6)


def test_a_dataset_without_geometry_is_refused_in_one_line(tmp_path):
    with SceneWriter(tmp_path / "set") as writer:
        writer.add(np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 5)))
    done = photo_folder(tmp_path / "set", tmp_path / "photos")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "states no geometry" in line
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["geometry"] is None


@pytest.mark.parametrize("preset", ["tiny", "sweep_tiny"])
def test_imported_photos_train_both_models(preset, tmp_path):
    pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    with SceneWriter(tmp_path / "set", field_of_view=50.0, yaw_sign=1, depth_range=(0.1, 3.0)) as writer:
        for scene in range(12):
            writer.add(np.stack([pattern(scene, view, 40) for view in range(5)]), rng.uniform(-1, 1, (5, 5)))
    assert photo_folder(tmp_path / "set", tmp_path / "photos", "--scenes", 12).returncode == 0
    import_photos(tmp_path / "photos", tmp_path / "mine", size=32, log=print)
    command = "from gqn_model.cli import main; main()"
    options = ("--steps", "1", "--batch-size", "2", "--device", "cpu", "--workers", "0", "--logger", "none")
    done = subprocess.run(
        [sys.executable, "-c", command, "train", "--shards", "mine", "--out", "run", "--preset", preset, *options],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "00000001.pt").exists()
