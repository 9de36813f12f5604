"""The sets of E-GQN: one folder of files, four views, cameras of nine numbers.

The records are made in that format by `tfrecord` and Pillow; the published ones are not available to the tests.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fault_server import FaultServer
from made_scenes import MadeScene, jpeg, pattern, write_source_file

from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import CorruptRecord, OptionError, OriginError, RunMismatch, SourceMissing
from gqn_data.formats import WRITABLE
from gqn_data.inspect.verify import verify
from gqn_data.loader import SceneLoader
from gqn_data.schema.cameras import POSE_FIELDS
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.schema.origin import Origin, claim
from gqn_data.sources.raw_folder import locate, open_raw_folder
from gqn_model.checkpoint.checkpoint import load_checkpoint, read_config
from gqn_model.config import resolve
from gqn_model.data import training_batches
from gqn_model.evaluate.baselines import nearest_view
from gqn_model.evaluate.run_evaluation import evaluate
from gqn_model.model.inputs import Context
from gqn_model.train.run import resume_run, start_run

NINE = "openai-block"
FIVE = "rooms-random-objects"
NUMBERS = {NINE: 9, FIVE: 5}
# number of the source file: its scenes
FILES = {NINE: {1: 3, 2000: 2, 2001: 2, 2500: 1}, FIVE: {2: 3, 1600: 2, 1601: 2, 1943: 1}}
NAMES = {NINE: "{:04}-of-2500.tfrecord", FIVE: "{:04}-of-1943.tfrecord"}


def scene_of(number, numbers):
    frames = tuple(jpeg(pattern(number, view, 128), quality=60) for view in range(4))
    cameras = np.random.default_rng(number).normal(size=(4, numbers)).astype(np.float32)
    return MadeScene(frames, cameras)


def make_raw(folder, name):
    """Write a raw folder and return the scenes of each split."""
    made = {"train": [], "test": []}
    for file, count in FILES[name].items():
        split = "train" if file <= 2000 and (name == NINE or file <= 1600) else "test"
        scenes = [scene_of(10 * file + place, NUMBERS[name]) for place in range(count)]
        write_source_file(folder / NAMES[name].format(file), scenes)
        made[split] += scenes
    return made


@pytest.fixture(scope="module", params=[NINE, FIVE])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def raw(name, tmp_path_factory):
    """Make an indexed folder, for reading only."""
    folder = tmp_path_factory.mktemp("egqn") / name
    made = make_raw(folder, name)
    index_raw_folder(open_raw_folder(folder, SCENE_SETS[name]))
    return folder, made


def same(dataset, scenes):
    assert len(dataset) == len(scenes)
    for found, made in zip(dataset, scenes):
        assert found.cameras.tobytes() == made.cameras.tobytes()
        if found.encoded is not None:
            assert [bytes(frame) for frame in found.encoded] == list(made.frames)
        assert found.frames.shape == (4, 128, 128, 3)


def test_the_number_of_a_file_decides_its_split(name, raw):
    folder, made = raw
    assert [len(made["train"]), len(made["test"])] == [5, 3]
    for split in ("train", "test"):
        same(open_dataset(folder, split), made[split])
    assert sorted(path.name for path in folder.glob("*.index.npy")) == [
        NAMES[name].format(file).replace(".tfrecord", ".index.npy") for file in FILES[name]
    ]


def test_the_file_that_their_reader_skips_is_skipped(tmp_path):
    make_raw(tmp_path / FIVE, FIVE)
    write_source_file(tmp_path / FIVE / NAMES[FIVE].format(1), [scene_of(7, 5)])
    files = open_raw_folder(tmp_path / FIVE, SCENE_SETS[FIVE]).files
    assert [file.name for file in files["train"]] == [NAMES[FIVE].format(file) for file in (2, 1600)]


def test_the_manifest_names_the_camera_numbers(name, raw):
    manifest = read_manifest(raw[0])
    assert len(manifest.cameras.fields) == NUMBERS[name]
    assert manifest.cameras.angles == ("undocumented" if name == NINE else "radians")
    assert manifest.cameras.pose == (manifest.cameras.fields if name == NINE else POSE_FIELDS)
    text = CliRunner().invoke(gqn_data, ["info", str(raw[0])]).stdout
    assert ("undocumented" in text) == (name == NINE)
    assert "5 scenes in 2 shards; source files 2 of" in text
    assert "whole set" not in text  # the number of scenes is not documented


@pytest.mark.parametrize("container", WRITABLE)
@pytest.mark.parametrize("indexed", [True, False])
def test_every_container_holds_them(container, indexed, name, raw, tmp_path):
    folder, made = raw
    if not indexed:
        shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("*.npy*", "manifest.json", "SHA256SUMS"))
        folder = tmp_path / name
    options = Options(formats=(container,), workers=1, shard_bytes=60_000)
    result = convert(folder, SCENE_SETS[name], tmp_path / "root", options)[0]
    for split in ("train", "test"):
        dataset = open_dataset(result.folder, split)
        same(dataset, made[split])
        assert dataset.cameras.shape == (len(made[split]), 4, NUMBERS[name])
    assert verify(*locate(str(result.folder), tmp_path, None), deep=True, workers=1).faults == ()
    assert convert(folder, SCENE_SETS[name], tmp_path / "root", options)[0].written == 0


def test_a_batch_holds_the_poses_of_the_set(name, raw):
    folder, made = raw
    loader = SceneLoader(folder, batch_size=5, epochs=1)
    assert loader.context == (1, 3)
    (batch,) = loader
    assert batch.context_poses.shape == (5, 3, 9 if name == NINE else 7)
    assert loader.pose_fields == read_manifest(folder).cameras.pose
    for place, (scene, views) in enumerate(zip(batch.scenes.tolist(), batch.views.tolist())):
        cameras = made["train"][scene].cameras
        for view, pose in zip(views, [batch.query_pose[place], *batch.context_poses[place]]):
            if view < 0:
                assert not pose.any()
            elif name == NINE:
                assert pose.tolist() == cameras[view].tolist()
            else:
                assert pose[:3].tolist() == cameras[view, :3].tolist()


def test_a_record_of_another_width_is_refused(tmp_path):
    folder = tmp_path / NINE
    write_source_file(folder / NAMES[NINE].format(1), [scene_of(0, 5)])
    with pytest.raises(CorruptRecord, match=r"20 camera numbers, expected 36: 4 views of number_1, "):
        index_raw_folder(open_raw_folder(folder, SCENE_SETS[NINE]))


def test_the_error_for_an_empty_folder_names_the_expected_files(tmp_path):
    with pytest.raises(SourceMissing, match=r"files named like 0002-of-1943\.tfrecord"):
        open_raw_folder(tmp_path, SCENE_SETS[FIVE])


def test_scenes_of_two_origins_are_not_mixed_in_one_folder(tmp_path):
    make_raw(tmp_path / FIVE, FIVE)
    with pytest.raises(OriginError, match="unknown origin"):
        claim(tmp_path / FIVE, Origin(kind="deepmind"))


def test_files_are_fetched_from_one_folder_and_converted(name, raw, tmp_path, monkeypatch):
    made = raw[1]
    monkeypatch.delenv("GQN_BASE_URL", raising=False)
    make_raw(tmp_path / "mirror" / name, name)
    numbers = ",".join(map(str, FILES[name]))
    with FaultServer(tmp_path / "mirror") as server:
        for split in ("train", "test"):
            options = ["--split", split, "--files", numbers_in(split, name), "--base-url", server.url]
            done = CliRunner().invoke(gqn_data, ["download", name, "--root", str(tmp_path / "a"), *options])
            assert done.exit_code == 0, done.output
        folder = tmp_path / "a" / "raw" / name
        assert sorted(path.name for path in folder.glob("*.tfrecord")) == [NAMES[name].format(n) for n in FILES[name]]
        done = CliRunner().invoke(
            gqn_data,
            ["convert", name, "--root", str(tmp_path / "b"), "--files", numbers, "--base-url", server.url],
        )
        assert done.exit_code == 0, done.output
    convert(folder, SCENE_SETS[name], tmp_path / "a", Options(workers=1))
    for root in ("a", "b"):
        for split in ("train", "test"):
            same(open_dataset(tmp_path / root / "zarr" / name, split), made[split])


def numbers_in(split, name):
    numbers = SCENE_SETS[name].split(split).numbers
    return ",".join(str(number) for number in FILES[name] if number in numbers)


SMALL = {
    "frame_size": 16, "representation_channels": 16, "hidden": 8, "canvas": 6, "core_steps": 2, "batch_size": 2,
    "device": "cpu", "logger": "none", "workers": 0, "threads": 1, "steps": 2,
}  # fmt: skip


def test_a_network_trains_on_them_and_resumes(name, raw, tmp_path):
    folder, _ = raw
    run = start_run(str(folder), resolve("tiny", (), SMALL), out=tmp_path / "run")
    checkpoint = load_checkpoint(run)
    assert checkpoint.step == 2
    assert checkpoint.config.model.pose == (9 if name == NINE else 7)
    expected = [field.replace(" ", "_") for field in read_manifest(folder).cameras.pose]
    assert checkpoint.pose_order.split() == expected
    resume_run(run, {"steps": 3})
    assert load_checkpoint(run).step == 3
    assert read_config(run) == load_checkpoint(run).config
    found = evaluate(run, str(folder), samples=2)
    assert found.scenes == 3
    assert [at.context for at in found.sweep] == [1, 2, 3]
    assert np.isfinite(found.at(3).excess.mean)


def test_a_run_refuses_cameras_of_another_kind(tmp_path):
    make_raw(tmp_path / NINE, NINE)
    make_raw(tmp_path / FIVE, FIVE)
    for name in (NINE, FIVE):
        index_raw_folder(open_raw_folder(tmp_path / name, SCENE_SETS[name]))
    run = start_run(str(tmp_path / NINE), resolve("tiny", (), SMALL), out=tmp_path / "run")
    with pytest.raises(RunMismatch, match=r"poses of 7 numbers .*expected 9"):
        evaluate(run, str(tmp_path / FIVE), other_set=True)
    with pytest.raises(RunMismatch, match=r"poses of 9 numbers .*expected 7"):
        training_batches(str(tmp_path / NINE), resolve("tiny", (), {**SMALL, "pose_numbers": 7}))
    # As many numbers with other names: the manifest shows the difference.
    manifest = json.loads((tmp_path / NINE / "manifest.json").read_text())
    manifest["cameras"]["fields"][0] = manifest["cameras"]["pose"][0] = "depth"
    (tmp_path / NINE / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunMismatch, match=r"poses are depth number_2 .*expected number_1 number_2"):
        evaluate(run, str(tmp_path / NINE))


def test_too_many_numbers_per_camera_are_refused():
    with pytest.raises(OptionError, match="0 to 64"):
        resolve("tiny", (), {"pose_numbers": 65})


def test_the_nearest_view_of_unknown_cameras_has_the_nearest_numbers():
    poses = torch.tensor([[[0.0] * 9, [5.0] * 9, [2.0] * 9]])
    frames = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(1, 3, 3, 4, 4)
    context = Context(frames, poses, torch.tensor([[True, True, False]]))
    assert nearest_view(context, torch.full((1, 9), 2.1)).unique().tolist() == [0.0]
    assert nearest_view(context, torch.full((1, 9), 3.0)).unique().tolist() == [1.0]
