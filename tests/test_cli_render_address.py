"""`gqn-data` commands on `render:` addresses: they work, or say in one line what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from gqn_data.cli import main as gqn_data
from gqn_data.dataset import open_dataset
from gqn_data.inspect.contact_sheet import contact_sheet
from gqn_data.io.paths import parse_dataset_path

FRESH = "render:rooms_ring_camera,frame_size=16,views=5,supersample=false"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(gqn_data, [str(argument) for argument in arguments])


def test_info_describes_what_would_be_rendered() -> None:
    lines = run("info", FRESH).stdout
    assert "5 views of 16x16, rendered on demand" in lines
    assert "field of view 50 degrees" in lines
    assert "scenes without end" in lines
    assert "12 scenes" in run("info", f"{FRESH},scenes=12").stdout
    manifest = json.loads(run("info", f"{FRESH},scenes=12", "--json").stdout)
    assert manifest["origin"]["details"]["supersample"] is False
    assert {name: split["scenes"] for name, split in manifest["splits"].items()} == {"train": 12, "test": 12}


@pytest.mark.parametrize("split", ["train", "test"])
def test_view_draws_the_scenes_that_it_needs(tmp_path: Path, split: str) -> None:
    picture = tmp_path / "sheet.png"
    done = run("view", FRESH, "-o", picture, "--scenes", 2, "--first", 50, "--views", 3, "--split", split)
    assert done.exit_code == 0, done.output
    sheet = contact_sheet(open_dataset(parse_dataset_path(f"{FRESH},scenes=52"), split), [50, 51], 3)
    with Image.open(picture) as image:
        drawn = np.asarray(image)[-len(sheet) :]  # below the title and the numbers of views
    assert sheet.shape == (2 * 18 + 2, 3 * 18 + 2, 3)
    assert any(np.array_equal(drawn[:, left : left + sheet.shape[1]], sheet) for left in range(drawn.shape[1]))


def test_bench_compares_with_bare_rendering() -> None:
    done = run("bench", FRESH, "--workers", "0,1", "--seconds", 0.05, "--batch-size", 2, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["limit"], found["scenes"], found["folder"]) == ("rendering", None, FRESH)
    assert all(row["frames_per_second"] > 0 for row in found["measured"])
    text = run("bench", FRESH, "--workers", "0", "--seconds", 0.05, "--batch-size", 2).stdout
    assert "scenes without end of train" in text


@pytest.mark.parametrize("command", [("verify",), ("convert",), ("index",), ("convert", "rooms", "--out")])
def test_commands_on_files_refuse_an_address_with_a_remedy(command: tuple[str, ...]) -> None:
    done = run(*command, FRESH)
    assert done.exit_code == 2
    assert "gqn-data render rooms_ring_camera --scenes N" in done.output
    assert "Traceback" not in done.output
