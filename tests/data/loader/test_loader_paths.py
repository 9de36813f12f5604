"""A loader that was opened by relative paths reads on from another working directory."""

import os
from pathlib import Path

import numpy as np
import pytest
from made_scenes import SET, tree

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.loader import SceneLoader
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources.raw_folder import open_raw_folder

ROW = SCENE_SETS[SET]
FOLDERS = {name: f"out/{name}/{SET}" for name in ("zarr", "numpy", "webdataset")} | {"tfrecord": f"raw/{SET}"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", [*FOLDERS, "all four"])
def test_a_loader_reads_on_from_another_folder(name, workers, raw, monkeypatch, faults):
    home = raw.parents[1]
    (home / "else").mkdir()
    monkeypatch.chdir(home)
    index_raw_folder(open_raw_folder(raw, ROW))
    convert(raw, ROW, Path("out"), Options(formats=("zarr", "numpy", "webdataset"), workers=1))
    paths = FOLDERS.get(name) or dict.fromkeys(FOLDERS.values(), 1.0)
    loader = SceneLoader(paths, batch_size=3, workers=workers, seed=1, epochs=1)
    before = [batch.target.numpy().copy() for batch in loader]
    loader.close()
    opened = SceneLoader(paths, batch_size=3, workers=workers, seed=1, epochs=1)
    os.chdir(home / "else")
    after = [batch.target.numpy().copy() for batch in opened]
    opened.close()
    assert len(before) > 0
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert tree(home / "else") == {}
    faults.record(
        "found in use: another working directory after opening",
        holds="what was opened by a relative path is read and written where it was",
        tries=1,
        survived=1,
    )
