"""The examples, run as programs."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_scenes import jpeg, pattern
from PIL import Image

from gqn_data.dataset import open_dataset
from gqn_data.schema.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("x", "y", "z", "yaw", "pitch")


def make_photos(folder, *, scenes=24, views=3, size=32, kind="jpg", table="csv", fields=FIELDS):
    """Make a folder of posed images; all camera numbers of view v of scene s are s + v / 10."""
    for number in range(scenes):
        scene = folder / f"scene-{number:04}"
        scene.mkdir(parents=True)
        rows = []
        for view in range(views):
            pixels = pattern(number, view, size)
            name = f"{view:02}.{kind}"
            if kind == "jpg":
                (scene / name).write_bytes(jpeg(pixels))
            else:
                Image.fromarray(pixels).save(scene / name)
            rows.append({"image": name, **dict.fromkeys(fields, number + view / 10)})
        if table == "json":
            (scene / "cameras.json").write_text(json.dumps(rows))
            continue
        with (scene / "cameras.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image", *fields])
            writer.writeheader()
            writer.writerows(rows)
    return folder


def run(*arguments, check=True):
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


def posed_images(*arguments, check=True):
    return run("examples/posed_images.py", *arguments, check=check)


def test_a_folder_of_posed_images_becomes_a_scene_set_for_training(tmp_path):
    pytest.importorskip("torch")
    photos = make_photos(tmp_path / "photos", scenes=40)
    folder = tmp_path / "zarr" / "my_photos"
    result = posed_images(photos, folder, "--test-every", 10)
    assert "40 scenes" in result.stdout
    train, test = open_dataset(folder, "train"), open_dataset(folder, "test")
    assert (len(train), len(test)) == (36, 4)
    assert [bytes(frame) for frame in train[0].encoded] == [jpeg(pattern(0, view, 32)) for view in range(3)]
    assert [round(float(scene.cameras[2, 0]), 1) for scene in test] == [9.2, 19.2, 29.2, 39.2]
    command = "from gqn_model.cli import main; main()"
    out = tmp_path / "run"
    options = ("--preset", "tiny", "--steps", 2, "--device", "cpu", "--workers", 0, "--logger", "none")
    run("-c", command, "train", "--shards", folder, "--out", out, *options)
    assert (out / "checkpoints" / "00000002.pt").exists()
    found = json.loads(run("-c", command, "evaluate", out, "--samples", 1, "--json").stdout)
    assert found["scenes"] == 4
    assert [row["context"] for row in found["sweep"]][-1] == 2  # all views except the query


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_images_are_cropped_resized_and_selected(kind, tmp_path):
    photos = make_photos(tmp_path / "photos", scenes=2, views=5, kind=kind, table="json")
    folder = tmp_path / "mine"
    posed_images(photos, folder, "--size", 16, "--views", 3, "--name", "two-rooms", "--jpeg-quality", 95)
    scenes = open_dataset(folder)
    assert scenes.manifest.scene_set == "two-rooms"
    assert scenes[1].frames.shape == (3, 16, 16, 3)
    np.testing.assert_allclose(scenes[1].cameras[:, 0], [1, 1.2, 1.4], rtol=1e-6)
    small = np.asarray(Image.fromarray(pattern(1, 2, 32)).resize((16, 16), Image.Resampling.LANCZOS), int)
    assert np.abs(scenes[1].frames[1] - small).mean() < 15


def test_cameras_of_another_kind_keep_their_numbers_and_names(tmp_path):
    fields = ("x", "y", "z", "qw", "qx", "qy", "qz")
    folder = tmp_path / "mine"
    posed_images(make_photos(tmp_path / "photos", scenes=2, fields=fields), folder)
    assert read_manifest(folder).cameras.fields == fields


def test_a_faulty_folder_is_reported_in_one_line(tmp_path):
    def error_of(photos, *options):
        result = posed_images(photos, tmp_path / "mine", *options, check=False)
        assert result.returncode == 1
        assert not (tmp_path / "mine").exists()
        (line,) = result.stderr.splitlines()
        return line

    (tmp_path / "empty").mkdir()
    assert "empty: no scenes" in error_of(tmp_path / "empty")
    photos = make_photos(tmp_path / "photos", scenes=3)
    assert "3 images, expected 9 or more" in error_of(photos, "--views", 9)
    (photos / "scene-0001" / "01.jpg").unlink()
    assert "row 1: image '01.jpg' is missing" in error_of(photos)
    (photos / "scene-0001" / "01.jpg").write_bytes(jpeg(pattern(0, 0, 16)))
    line = error_of(photos)
    assert all(part in line for part in ("scene-0001", "view 1", "16x16", "32x32")), line
    (photos / "scene-0001" / "01.jpg").write_bytes(b"no image")
    assert "cannot be read as an image" in error_of(photos, "--size", 16)
    (photos / "scene-0000" / "cameras.csv").write_text("image,x\n00.jpg,here\n")
    assert "cameras.csv: row 0: 00.jpg: invalid or missing numbers, expected x" in error_of(photos)
    (photos / "scene-0000" / "cameras.csv").write_text("picture,x\n00.jpg,1\n")
    assert "cameras.csv: no rows with images" in error_of(photos)
