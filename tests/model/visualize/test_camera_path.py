"""Walks through a scene: camera paths and animations."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from synthetic import small, small_inputs, small_model

from gqn_data.errors import OptionError
from gqn_data.render.jaco import jaco_cameras
from gqn_data.render.room_cameras import ring_cameras
from gqn_data.schema.cameras import poses_of
from gqn_model.cli import main as gqn
from gqn_model.model.inputs import Context
from gqn_model.visualize.camera_path import CameraPath, Cameras, directions, find_camera_path, focus_point
from gqn_model.visualize.sample import predict_along, write_walk
from gqn_model.visualize.video import write_animation
from gqn_model.visualize.walk_frames import WalkScene, draw_walk, nearest_views


def _free(views: int, seed: int) -> Cameras:
    """Return cameras at random positions in a room, with random directions."""
    random = np.random.default_rng(seed)
    x, y = random.uniform(-1, 1, (2, views))
    return np.stack([x, y, np.zeros(views), random.uniform(-math.pi, math.pi, views), -0.2 * random.random(views)], 1)


def _on_sphere(views: int, seed: int) -> Cameras:
    """Return cameras on the unit sphere that look at its centre, as in the Shepard-Metzler sets."""
    random = np.random.default_rng(seed)
    positions = random.normal(size=(views, 3))
    positions /= np.linalg.norm(positions, axis=1, keepdims=True)
    x, y, z = positions.T
    return np.stack([x, y, z, np.arctan2(-y, -x), np.arctan2(-z, np.hypot(x, y))], 1)


def _stroll(views: int) -> Cameras:
    """Return a record as in a maze: a turn on the spot, then a curve in the direction of motion."""
    spin = np.linspace(0, 2 * math.pi, views // 4, endpoint=False)
    t = np.linspace(0, 3, views - len(spin))
    x, y = 0.2 * t, 0.15 * np.sin(2 * t)
    yaw = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
    turn = np.stack([np.full_like(spin, x[0]), np.full_like(spin, y[0]), spin * 0, spin + yaw[0], spin * 0], 1)
    return np.concatenate([turn, np.stack([x, y, t * 0, yaw, t * 0], 1)])


def _steps(walk: CameraPath) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the camera moves and turns from frame to frame."""
    path = np.concatenate([walk.cameras, walk.cameras[: 1 * walk.closed]])
    looks = directions(path)
    turned = np.arccos(np.clip((looks[1:] * looks[:-1]).sum(1), -1, 1))
    return np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1), turned


@pytest.mark.parametrize("seed", range(5))
def test_a_ring_gives_an_orbit_on_the_ring(seed: int) -> None:
    recorded = ring_cameras(np.random.default_rng(seed), 10).astype(np.float32)
    walk = find_camera_path(recorded, frames=50)
    assert (walk.kind, walk.closed, len(walk.cameras)) == ("orbit", True, 50)
    x, y, z, yaw, pitch = walk.cameras.T
    np.testing.assert_allclose(np.hypot(x, y), 1.0, atol=1e-5)
    np.testing.assert_allclose([z, pitch], 0.0, atol=1e-5)
    # Towards the centre, in the renderer's convention.
    np.testing.assert_allclose(np.cos(yaw), -x, atol=1e-5)
    np.testing.assert_allclose(np.sin(yaw), -y, atol=1e-5)
    assert np.abs(yaw).max() <= math.pi
    np.testing.assert_allclose(walk.cameras[0], recorded[0], atol=1e-5)  # starts at the first view
    moved, _ = _steps(walk)
    np.testing.assert_allclose(moved, 2 * math.sin(math.pi / 50), rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_a_sphere_gives_an_orbit_on_the_sphere(seed: int) -> None:
    recorded = _on_sphere(15, seed)
    walk = find_camera_path(recorded)
    assert walk.kind == "orbit"
    positions = walk.cameras[:, :3]
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(directions(walk.cameras), -positions, atol=1e-6)
    assert np.ptp(positions[:, 2]) < 1e-9
    assert abs(positions[0, 2]) <= math.sin(math.radians(60)) + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_uneven_cameras_around_an_arm_give_an_orbit(seed: int) -> None:
    recorded = jaco_cameras(np.random.default_rng(seed), 11)
    walk = find_camera_path(recorded)
    point = focus_point(recorded)
    assert walk.kind == "orbit"
    assert point is not None
    towards = point - walk.cameras[:, :3]
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    np.testing.assert_allclose(directions(walk.cameras), towards, atol=1e-6)


def test_cameras_on_one_side_give_an_arc_and_back() -> None:
    bearing = np.array([-0.6, 0.1, 0.7, 0.3])
    x, y = np.cos(bearing), np.sin(bearing)
    recorded = np.stack([x, y, 0 * x, np.arctan2(-y, -x), 0 * x], 1)
    walk = find_camera_path(recorded, frames=80)
    seen = np.arctan2(walk.cameras[:, 1], walk.cameras[:, 0])
    assert seen.min() == pytest.approx(-0.6, abs=1e-3)
    assert seen.max() == pytest.approx(0.7, abs=1e-3)
    assert walk.closed
    assert _steps(walk)[0].max() < 0.1


def test_a_continuous_record_gives_its_path() -> None:
    recorded = _stroll(200)
    walk = find_camera_path(recorded, frames=400)
    assert (walk.kind, walk.closed, len(walk.cameras)) == ("record", False, 400)
    np.testing.assert_allclose(walk.cameras[[0, -1], :3], recorded[[0, -1], :3], atol=1e-9)
    # never far from a recorded camera, in position and direction
    near = np.linalg.norm(walk.cameras[:, None, :3] - recorded[None, :, :3], axis=-1).min(1)
    assert near.max() < 0.5 * np.linalg.norm(np.diff(recorded[:, :3], axis=0), axis=1).max() + 1e-6
    _, turned = _steps(walk)
    assert turned.max() < 0.15
    assert len(find_camera_path(recorded).cameras) == 200


@given(seed=st.integers(0, 10_000), views=st.integers(4, 14))
@settings(max_examples=25, deadline=None)
def test_free_cameras_give_a_smooth_round_trip_through_all(seed: int, views: int) -> None:
    recorded = _free(views, seed)
    walk = find_camera_path(recorded, frames=40 * views)
    assert (walk.kind, walk.closed) == ("tour", True)
    apart = np.linalg.norm(walk.cameras[:, None, :3] - recorded[:, :3], axis=-1)
    looks = np.arccos(np.clip(directions(walk.cameras) @ directions(recorded).T, -1, 1))
    assert ((apart < 0.12) & (looks < 0.25)).any(0).all()  # it passes every camera
    moved, turned = _steps(walk)
    assert moved.max() < 0.25
    assert turned.max() < 0.35
    low, high = recorded[:, :3].min(0), recorded[:, :3].max(0)
    assert (walk.cameras[:, :3] >= low - 1e-9).all()
    assert (walk.cameras[:, :3] <= high + 1e-9).all()
    assert np.abs(walk.cameras[:, 3]).max() <= math.pi


def test_a_yaw_across_pi_turns_the_short_way() -> None:
    recorded = np.array([[0, 0, 0, 3.0, 0], [1, 0, 0, -3.0, 0.0], [1, 1, 0, 2.9, 0], [0, 1, 0, -2.9, 0]], float)
    walk = find_camera_path(recorded, frames=60)
    assert walk.kind == "tour"
    assert np.abs(walk.cameras[:, 3]).min() > 2.8


def test_equal_cameras_and_unknown_numbers_are_refused() -> None:
    same = np.tile([[0.1, 0.2, 0.0, 1.0, 0.0]], (5, 1))
    with pytest.raises(OptionError, match=r"all cameras .* equal"):
        find_camera_path(same)
    with pytest.raises(OptionError, match=r"number_0, .*number_8, expected x, y, z, yaw, pitch"):
        find_camera_path(np.zeros((4, 9)), tuple(f"number_{k}" for k in range(9)))


def test_encoding_the_context_once_equals_separate_predictions() -> None:
    config = small()
    model, inputs = small_model(config), small_inputs(config)
    context = Context(*(part[1:2] for part in inputs.context))
    poses = torch.from_numpy(poses_of(_free(37, 0).astype(np.float32)))
    noise = model.noise(torch.zeros(1), torch.Generator().manual_seed(3))[:, 0]
    found = predict_along(model, context, poses, noise)
    with torch.no_grad():
        for number in (0, 31, 36):
            single = model.predict(context, poses[number : number + 1], noise[:, None])
            torch.testing.assert_close(found[number], single[0], rtol=1e-4, atol=1e-5)


def test_a_still_camera_gives_equal_frames() -> None:
    config = small()
    model, inputs = small_model(config), small_inputs(config)
    context = Context(*(part[:1] for part in inputs.context))
    noise = model.noise(torch.zeros(1), torch.Generator().manual_seed(3))[:, 0]
    still = predict_along(model, context, inputs.query[:1].expand(40, -1), noise)
    torch.testing.assert_close(still, still[:1].expand_as(still), rtol=1e-4, atol=1e-5)


def test_a_walk_is_a_gif_with_the_given_number_of_frames(bars: Path, bars_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "walk.gif"
    arguments = ["sample", bars_run, "--walk", "-o", path, "--frames", 9, "--scene", 3, "--samples", 2, "--context", 4]
    done = CliRunner().invoke(gqn, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(path)
    with Image.open(path) as image:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
        assert image.info["loop"] == 0
        assert image.info["duration"] == 70
    assert len(frames) == 9
    assert not np.array_equal(frames[0], frames[4])
    # Still parts are identical in all frames: title, context views, captions.
    corner = [frame[:, :120] for frame in frames]
    assert all(np.array_equal(corner[0], other) for other in corner)
    before = path.read_bytes()
    write_walk(bars_run, str(bars), path, frames=9, scene=3, samples=2, context=4)
    assert path.read_bytes() == before


def test_the_nearest_view_is_the_view_itself_where_the_path_meets_it() -> None:
    recorded = _free(12, 0)
    np.testing.assert_array_equal(nearest_views(recorded[[7, 2]], recorded), [7, 2])
    turned = recorded[[4, 4]] + [[0, 0, 0, 0, 0], [0, 0, 0, math.pi, 0]]
    found = nearest_views(turned, np.concatenate([recorded[:5], turned[1:]]))
    np.testing.assert_array_equal(found, [4, 5])  # by direction, at the same place
    np.testing.assert_array_equal(nearest_views(turned, turned[:1]), [0, 0])


def test_a_walk_shows_the_true_frame_beside_the_prediction_and_a_legend() -> None:
    recorded = _free(6, 0)
    colours = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40 + np.zeros((6, 8, 8, 3), np.uint8)
    scene = WalkScene(title="a scene", recorded=recorded, context=[1, 3], frames=colours)
    path = CameraPath(cameras=recorded, kind="tour", closed=False)
    red = np.zeros((6, 8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    drawn = [np.asarray(image) for image in draw_walk(path, scene, {"prediction": red})]
    predicted = np.argwhere((drawn[0] == [255, 0, 0]).all(-1))
    (top, left), (bottom, right) = predicted.min(0), predicted.max(0)
    for number, image in enumerate(drawn):
        beside = image[top : bottom + 1, right + 20 : 2 * right - left]
        assert (beside == colours[number, 0, 0]).all()
    assert (drawn[0][bottom + 5 :] < 100).any()  # the legend
    assert all(np.array_equal(drawn[0][bottom + 2 :], image[bottom + 2 :]) for image in drawn)


def test_a_walk_is_an_mp4_that_pyav_decodes(bars: Path, bars_run: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "walk.mp4"
    walk = write_walk(bars_run, str(bars), path, frames=7, rate=10, samples=0)
    assert walk.kind == "tour"  # the cameras of the bars look outwards
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert float(stream.average_rate) == 10
    assert len(frames) == 7
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    assert frames[0].mean() > 100  # mostly white, not black


def test_still_parts_of_a_gif_do_not_flicker(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = []
    for _ in range(5):
        pixels = np.full((40, 40, 3), np.linspace(60, 180, 40)[:, None, None], np.uint8)
        pixels[:, 20:] = random.integers(0, 256, (40, 20, 3))
        frames.append(Image.fromarray(pixels))
    write_animation(frames, tmp_path / "a.gif", 10)
    with Image.open(tmp_path / "a.gif") as image:
        left = [np.asarray(frame.convert("RGB"))[:, :20] for frame in ImageSequence.Iterator(image)]
    assert len(left) == 5
    assert all(np.array_equal(left[0], other) for other in left)


def test_frames_of_odd_size_are_padded_only_for_mp4(tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = [Image.new("RGB", (31, 17), (value, 0, 0)) for value in (0, 120, 240)]
    write_animation(frames, tmp_path / "a.mp4", 5)
    write_animation(frames, tmp_path / "a.gif", 5)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (31, 17)
        assert getattr(image, "n_frames", 1) == 3


def test_mp4_without_pyav_names_the_extra_to_install(
    bars_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    done = CliRunner().invoke(gqn, ["sample", str(bars_run), "--walk", "-o", str(tmp_path / "walk.mp4")])
    assert done.exit_code == 1
    assert "pip install '.[video]'" in done.output
    assert not (tmp_path / "walk.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--walk", "-o", "x.png"], "expected one of .gif, .mp4"),
        (["-o", "x.gif"], "x.gif: an animation needs --walk"),
        (["--walk", "-o", "x.gif", "--scenes", "2"], "without --walk"),
        (["-o", "x.png", "--frames", "9"], "with --walk"),
        (["--walk", "-o", "x.gif", "--scene", "99"], "99"),
        (["--walk", "-o", "x.gif", "--context", "10"], "at most 9"),
    ],
)
def test_impossible_walks_are_refused(bars_run: Path, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(gqn, ["sample", str(bars_run), *arguments])
    assert done.exit_code == 2, done.output
    assert words in done.output


def test_a_set_with_clockwise_yaw_gets_the_mirrored_path():
    recorded = _on_sphere(15, seed=3)
    turned = recorded * np.array([1, 1, 1, -1, 1])
    expected, found = find_camera_path(recorded), find_camera_path(turned, yaw_sign=-1)
    assert found.kind == expected.kind == "orbit"
    np.testing.assert_allclose(found.cameras[:, [0, 1, 2, 4]], expected.cameras[:, [0, 1, 2, 4]], atol=1e-9)
    np.testing.assert_allclose(found.cameras[:, 3], -expected.cameras[:, 3], atol=1e-9)
