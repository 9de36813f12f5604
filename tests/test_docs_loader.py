"""Run every snippet of docs/loader.md on small rendered sets and check what the page says about it."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.loader import SceneLoader
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import find_scene_set

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "loader.md").read_text()
ROOMS = "data/zarr/rooms_ring_camera"

pytestmark = [
    # Python 3.12 and later warn about every fork in a process with threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def _snippets(kind):
    """Return the snippet below each heading; "" is the heading of the page's beginning."""
    found = {}
    heading = ""
    for line in re.split(rf"(^## [^\n]*$|^```{kind}\n.*?^```$)", PAGE, flags=re.MULTILINE | re.DOTALL):
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("```"):
            assert heading not in found, f"two snippets below {heading!r}"
            found[heading] = line.split("\n", 1)[1].removesuffix("```")
    return found


PYTHON, SHELL = _snippets("python"), _snippets("sh")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with the datasets that the snippets name: 180 + 20 rooms, 54 + 6 figures."""
    home = tmp_path_factory.mktemp("docs")
    for name, scenes in (("rooms_ring_camera", 200), ("shepard_metzler_5_parts", 60)):
        made = render_scene_set(
            home / "data", name, scenes=scenes, frame_size=32, views=6, supersample=False, workers=1
        )
        convert(made.folder, find_scene_set(name), home / "data", Options(workers=1))
    return home


@pytest.fixture
def run(home, monkeypatch):
    """Return a function that runs the snippet below a heading and returns its variables."""
    monkeypatch.chdir(home)

    def run(heading):
        names = {"__name__": "snippet"}
        exec(compile(PYTHON[heading], f"docs/loader.md, {heading}", "exec"), names)
        return names

    return run


def _program(home, heading, more="", *, launcher=(sys.executable,)):
    """Run the snippet below a heading in a new process and return its output."""
    path = home / "train.py"
    path.write_text(PYTHON[heading] + more)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "train.py"], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _equal(batch, other):
    return all(torch.equal(part, another) for part, another in zip(batch, other, strict=True))


def test_every_snippet_has_a_test_below():
    tests = Path(__file__).read_text()
    assert len(PYTHON) == PAGE.count("```python") > 10
    for heading in PYTHON:
        assert f'"{heading}"' in tests, heading


def test_one_line_makes_a_loader(run):
    assert len(run("")["loader"]) == 5


def test_the_plain_loop_trains_for_two_epochs(run):
    names = run("A plain PyTorch loop")
    assert names["step"] == 9  # two epochs of five batches
    slots = names["context"].shape[1]
    assert names["target"].shape == (36, 3, 32, 32)
    assert names["context"].shape == (36, slots, 3, 32, 32)
    assert (names["context_poses"].shape, names["query_pose"].shape) == ((36, slots, 7), (36, 7))
    assert names["mask"].shape == (36, slots)
    assert 0 < float(names["target"].max()) <= 1


def test_a_loaded_state_gives_the_next_batch(run):
    second = run("Save and resume")["second"]
    _, expected = islice(SceneLoader(ROOMS, batch_size=36), 2)
    assert _equal(second, expected)


@pytest.mark.slow
def test_the_snippet_for_several_gpus_runs_under_torchrun(home):
    (launch,) = [shlex.split(line) for line in SHELL["Several GPUs"].splitlines()]
    assert launch[0] == "torchrun"
    assert launch[-1] == "train.py"
    _program(home, "Several GPUs", launcher=(sys.executable, "-m", "torch.distributed.run", *launch[1:-1]))


@pytest.mark.slow
def test_lightning_continues_from_the_loaded_state(home):
    if importlib.util.find_spec("pytorch_lightning") is None:
        pytest.skip("pytorch-lightning is not installed")
    more = "print('STATE', trainer.global_step, trainer.train_dataloader.state_dict())\n"
    output = _program(home, "Lightning", more)
    (state,) = [line for line in output.splitlines() if line.startswith("STATE")]
    # Five batches per epoch: without the loaded state the loader would have yielded four.
    assert state.startswith("STATE 8 ")
    assert "'epoch': 1, 'batches': 3" in state


PASSES = """
import json


class Seen(lightning.Callback):
    def __init__(self):
        self.passes = []

    def on_validation_start(self, *_):
        self.passes.append([])

    def on_validation_batch_end(self, trainer, module, outputs, batch, *_):
        self.passes[-1].append([batch.scenes.tolist(), batch.views.tolist()])


def passes(ckpt_path=None, **options):
    seen = Seen()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[seen], **options
    )
    trainer.fit(Model(), datamodule=Scenes(), ckpt_path=ckpt_path)
    trainer.save_checkpoint("half.ckpt")
    return seen.passes


print("PASSES", json.dumps({
    "sanity": passes(max_epochs=3, num_sanity_val_steps=2),
    "whole": passes(max_epochs=2, num_sanity_val_steps=-1),
    "limited": passes(max_epochs=3, limit_val_batches=1),
    "often": passes(max_epochs=2, val_check_interval=2, limit_val_batches=3),
    "resumed": passes("half.ckpt", max_epochs=5, limit_val_batches=0.5),
}))
"""


def test_lightning_validates_on_the_same_scenes_in_every_pass(home, faults):
    if importlib.util.find_spec("pytorch_lightning") is None:
        pytest.skip("pytorch-lightning is not installed")
    output = _program(home, "Validation with Lightning", PASSES)
    (line,) = [line for line in output.splitlines() if line.startswith("PASSES ")]
    passes = json.loads(line.removeprefix("PASSES "))
    loader = SceneLoader(home / ROOMS, split="test", batch_size=4, shuffle=False, epochs=1)
    whole = [[batch.scenes.tolist(), batch.views.tolist()] for batch in loader]
    lengths = {name: [len(batches) for batches in found] for name, found in passes.items()}
    assert lengths == {
        "sanity": [2, 5, 5, 5],
        "whole": [5, 5, 5],
        "limited": [1, 1, 1, 1],
        "often": [2, 3, 3, 3, 3],
        "resumed": [2, 2, 2, 2],
    }
    every = [batches for found in passes.values() for batches in found]
    faults.record(
        "found in use: validation passes of Lightning",
        holds="every pass sees the same scenes and views, also when shortened or resumed",
        tries=len(every),
        survived=sum(batches == whole[: len(batches)] for batches in every),
    )


def test_several_datasets_are_mixed_by_weight(run):
    names = run("Several datasets")
    assert len(names["both"]) == (180 + 54) // 36
    assert set(names["batch"].datasets.tolist()) == {0, 1}
    again = SceneLoader({ROOMS: 3, "data/zarr/shepard_metzler_5_parts": 1}, batch_size=100, epoch_scenes=400)
    epoch = torch.cat([batch.datasets for batch in islice(again, 4)])
    assert (epoch == 0).sum() == 300


def test_fresh_scenes_come_without_a_disk(run):
    names = run("Fresh scenes without a disk")
    with pytest.raises(TypeError):
        len(names["endless"])
    assert len(names["bounded"]) == 27
    assert len(names["unseen"]) == 5
    assert names["endless"].dataset.manifest.geometry.field_of_view == 50
    assert names["unseen"].dataset.split == "test"


def test_fixed_questions_are_asked_in_order(run):
    names = run("Fixed questions, for evaluation")
    batches = list(names["loader"])
    asked = [[scene, *views] for batch in batches for scene, views in zip(batch.scenes.tolist(), batch.views.tolist())]
    assert asked == names["samples"]
    assert [len(batch.scenes) for batch in batches] == [2, 1]


def test_several_targets_are_views_outside_the_context(run):
    names = run("Several targets a scene")
    batch = names["batch"]
    assert batch.target.shape == (12, 3, 32, 32, 3)
    assert batch.query_pose.shape == (12, 3, 7)
    assert batch.context_frames.shape[:2] in {(12, 1), (12, 2)}
    assert all(len(set(views)) == len(views) for views in batch.views.tolist())
    assert batch.queries.tolist() == batch.views[:, :3].tolist()


def test_sequences_hold_all_views_in_order(run):
    batch = run("Sequences: all views in order")["batch"]
    assert batch.views.tolist() == [list(range(6))] * 8
    assert batch.frames.shape == (8, 6, 32, 32, 3)
    assert batch.poses.shape == (8, 6, 7)


def test_held_out_scenes_are_not_trained_on(run):
    names = run("Some of the scenes")
    held_out = {scene for batch in names["checking"] for scene in batch.scenes.tolist()}
    trained = {scene for batch in islice(names["training"], 9) for scene in batch.scenes.tolist()}
    assert held_out == set(range(0, 180, 10))
    assert not held_out & trained


def test_frames_are_resized_and_poses_reordered(run):
    names = run("Frames of another size, poses of another order")
    assert names["loader"].pose_fields == ("x", "y", "z", "cos yaw", "sin yaw", "cos pitch", "sin pitch")
    assert names["larger"].pose_fields == ("x", "y", "z", "yaw", "pitch")
    assert next(iter(names["larger"])).frames.shape[2:] == (96, 96, 3)


def test_the_notebook_snippet_draws_one_scene(run, home, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert len(run("One scene in a notebook")["scene"].frames) == 6
    assert (home / "scene.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_of_the_page_are_valid():
    lines = SHELL["How many workers?"].splitlines()
    assert len(lines) > 2
    for line in lines:
        program, name, *arguments = shlex.split(line.split(" > ")[0])
        assert program == "gqn-data"
        gqn_data.commands[name].make_context(name, arguments)


def test_every_field_of_the_json_is_in_the_table():
    from dataclasses import fields

    from gqn_data.bench.advice import Measured
    from gqn_data.bench.measure import Bench

    table = PAGE.split("| in `--json` | what |")[1]
    for name in [field.name for kind in (Bench, Measured) for field in fields(kind)] + ["of_limit"]:
        assert re.search(rf"\b{name}\b", table.replace("measured[]", "measured")), name


def test_every_option_of_the_loader_is_in_the_table():
    import inspect

    table = PAGE.split("| option | what |")[1].split("## ")[0]
    for name in inspect.signature(SceneLoader).parameters:
        if name not in ("path", "batch_size", "epoch_scenes"):
            assert f"`{name}`" in table, name
