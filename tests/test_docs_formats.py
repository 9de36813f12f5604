"""The lines that `docs/formats.md` gives to other trainers, executed."""

from __future__ import annotations

import io
import re
import sys
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from made_scenes import SET, made_scene, make_raw_folder

from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.schema.catalog import SCENE_SETS

PAGE = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    raw = make_raw_folder(tmp_path / "raw" / SET)  # 7 train scenes
    options = Options(formats=("zarr", "numpy", "mirror"), workers=1, shard_bytes=10_000)
    convert(raw, SCENE_SETS[SET], tmp_path / "data", options)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _pixels(number: int) -> Any:
    return np.stack([simplejpeg.decode_jpeg(frame) for frame in made_scene(number).frames])


def _run(has: str) -> dict[str, Any]:
    """Run the snippet with a word in it, for the set of the tests, and return its variables."""
    (snippet,) = (text for text in SNIPPETS if has in text and "DataReader" not in text)
    names = {"np": np}
    exec(compile(snippet.replace("shepard_metzler_5_parts", SET), "docs/formats.md", "exec"), names)
    return names


@pytest.mark.usefixtures("home")
def test_the_lines_for_the_numpy_mirror_map_both_arrays() -> None:
    names = _run("train_viewpoints.npy")
    np.testing.assert_array_equal(names["images"][6], _pixels(6))
    np.testing.assert_array_equal(names["viewpoints"][6], made_scene(6).cameras)


def test_the_lines_for_chainer_gqn_name_arrays_alike(home: Path) -> None:
    _run("chainer-gqn")
    target = home / "chainer-gqn" / "train"
    names = sorted(path.name for path in (target / "images").iterdir())
    assert names == sorted(path.name for path in (target / "viewpoints").iterdir())
    assert len(names) > 1
    images = np.concatenate([np.load(target / "images" / name) for name in names])
    viewpoints = np.concatenate([np.load(target / "viewpoints" / name) for name in names])
    x, y, z, yaw, pitch = np.moveaxis(made_scene(6).cameras, -1, 0)
    expected = np.stack([x, y, z, np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)], -1)
    np.testing.assert_array_equal(images[6], _pixels(6))
    np.testing.assert_allclose(viewpoints[6], expected, rtol=1e-6)
    assert viewpoints.dtype == np.float32


def test_the_lines_for_torch_gqn_pickle_its_scenes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = types.ModuleType("gqn_dataset")
    scene_type = namedtuple("Scene", ["frames", "cameras"], module="gqn_dataset")  # type: ignore[misc]
    theirs.Scene = scene_type  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gqn_dataset", theirs)
    _run("torch-gqn")
    folder = home / "torch-gqn" / "train"
    assert sorted(path.name for path in folder.iterdir()) == [f"{number}.pt" for number in range(7)]
    read = torch.load(io.BytesIO((folder / "6.pt").read_bytes()), weights_only=False)
    frames = np.stack([simplejpeg.decode_jpeg(frame) for frame in read.frames])
    np.testing.assert_array_equal(frames, _pixels(6))
    assert torch.from_numpy(read.cameras).view(-1, 5).shape == (len(frames), 5)
