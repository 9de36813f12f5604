"""Predictions of the viewer are those of the model itself; checkpoints may change under it."""

import math
import shutil

import numpy as np
import pytest
import torch
from synthetic import SMALL, SMALL_NETWORKS

pytest.importorskip("viser", reason="viser is not installed: pip install '.[viewer]'")

from gqn_data import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.errors import CheckpointError, CorruptFrame
from gqn_data.schema.cameras import poses_of
from gqn_data.viewer.gallery import Gallery
from gqn_model.checkpoint.checkpoint import checkpoint_path
from gqn_model.checkpoint.load import load_model
from gqn_model.config import resolve
from gqn_model.model.inputs import Context
from gqn_model.train.run import start_run
from gqn_model.viewer.explore import _cameras_of
from gqn_model.viewer.page import depth_picture
from gqn_model.viewer.predictor import Predictor, psnr_of


@pytest.fixture(params=["bars_run", "sweep_run"])
def run(request, tmp_path):
    """Return a copy of a run of GQN and of the plane sweep, with checkpoints of steps 3 and 6."""
    return shutil.copytree(request.getfixturevalue(request.param), tmp_path / "run")


def context_of(views, chosen):
    frames = torch.from_numpy(views.frames[chosen]).permute(0, 3, 1, 2)[None] / 255
    poses = torch.from_numpy(poses_of(views.cameras[chosen]))[None]
    return Context(frames, poses, torch.ones(1, len(chosen), dtype=torch.bool))


def test_a_prediction_is_that_of_the_model(run, bars):
    predictor = Predictor(run, bars, device="cpu")
    views = Gallery(bars, predictor.read).views_of("test", 1)
    np.testing.assert_array_equal(views.cameras, open_dataset(bars, "test").cameras_of(1))
    model, query = load_model(run), torch.from_numpy(poses_of(views.cameras[:1]))
    for chosen in ([1, 2], [2], [1, 2]):  # the encoding of another context is not used again
        found = predictor.predict(("test", 1), views, chosen, views.cameras[0], samples=2)
        with torch.inference_mode():
            expected = model.predict_mean(context_of(views, chosen), query)[0].clamp(0, 1).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found.frame, expected, atol=1e-5)
        assert len(found.samples) == (2 if predictor.has_samples else 0)
        assert (found.depth is None) == predictor.has_samples


def test_another_scene_with_the_same_context_is_encoded_again(run, bars):
    predictor = Predictor(run, bars, device="cpu")
    gallery = Gallery(bars, predictor.read)
    frames = []
    for scene in (0, 1, 0):
        views = gallery.views_of("test", scene)
        frames.append(predictor.predict(("test", scene), views, [1, 2], views.cameras[0] * 0, samples=0).frame)
    assert not np.array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[0], frames[2])


def test_samples_do_not_flicker_while_the_query_stays(bars_run, bars):
    predictor = Predictor(bars_run, bars, device="cpu")
    views = Gallery(bars, predictor.read).views_of("test", 0)
    one, two = (predictor.predict(0, views, [1], views.cameras[0], samples=count).samples for count in (1, 3))
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)
    assert not np.allclose(two[0], two[1])


def test_a_plane_sweep_with_noise_has_samples_and_a_depth(bars, tmp_path):
    changes = SMALL | SMALL_NETWORKS["plane_sweep"] | {"noise": 3, "steps": 1}
    run = start_run(str(bars), resolve("sweep_tiny", (), changes), out=tmp_path / "noisy")
    predictor = Predictor(run, bars, device="cpu")
    views = Gallery(bars, predictor.read).views_of("test", 0)
    one, two = (predictor.predict(0, views, [1], views.cameras[0], samples=count) for count in (1, 3))
    assert predictor.has_samples
    assert one.depth is not None
    assert [len(found.samples) for found in (one, two)] == [1, 3]
    np.testing.assert_allclose(one.samples[0], two.samples[0], atol=1e-6)
    assert not np.allclose(two.samples[0], two.samples[1])
    assert not np.allclose(two.samples[0], two.frame)


def test_the_depth_of_a_copied_pixel_is_a_plane_and_blue_pixels_are_made(sweep_run, bars):
    predictor = Predictor(sweep_run, bars, device="cpu")
    views = Gallery(bars, predictor.read).views_of("test", 0)
    depth = predictor.predict(0, views, [1, 2], views.cameras[0], samples=0).depth
    planes = load_model(sweep_run).depths.numpy()
    known = depth[np.isfinite(depth)]
    assert np.isin(known, planes).all()
    picture = depth_picture(np.array([[1, 2], [4, np.nan]], np.float32))
    assert picture[0, 0, 0] > picture[0, 1, 0] > picture[1, 0, 0]
    assert picture[1, 1].tolist() == [40, 60, 140]


def test_psnr_is_that_of_the_mean_squared_error():
    truth = np.full((2, 2, 3), 51, np.uint8)
    assert psnr_of(np.full((2, 2, 3), 0.3, np.float32), truth) == pytest.approx(20, abs=1e-4)


def test_a_prediction_that_is_not_finite_is_one_line(run, bars):
    predictor = Predictor(run, bars, device="cpu")
    views = Gallery(bars, predictor.read).views_of("test", 0)
    with torch.no_grad():
        for weight in predictor._model.parameters():
            weight.fill_(math.nan)
    with pytest.raises(CheckpointError, match=r"step 6 predicts NaN or infinity at this camera") as caught:
        predictor.predict(0, views, [1], views.cameras[0], samples=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [1, 24])
def test_cameras_that_are_not_finite_are_left_out_of_the_range(bad, bars, tmp_path):
    with SceneWriter(tmp_path / "set", format="numpy") as writer:
        for scene in open_dataset(bars, "train"):
            writer.add(scene.frames, scene.cameras)
    (shard,) = (tmp_path / "set").rglob("*cameras*")
    cameras = np.load(shard, mmap_mode="r+")
    cameras[:bad, 0] = math.nan
    cameras.flush()
    gallery = Gallery(tmp_path / "set")
    if bad == 24:
        cameras[:] = math.nan
        cameras.flush()
        with pytest.raises(CorruptFrame, match="no camera of the first scenes is finite"):
            _cameras_of(gallery)
    else:
        assert np.isfinite(_cameras_of(gallery)).all()


def test_a_newer_checkpoint_is_loaded_and_reported_once(run, bars, tmp_path):
    newest = checkpoint_path(run, 6)
    hidden = [shutil.move(path, tmp_path) for path in (f"{newest}.sha256", newest)]
    predictor = Predictor(run, bars, device="cpu")
    assert predictor.checkpoint.step < 6
    assert predictor.refresh() == ""
    for path in reversed(hidden):
        shutil.move(path, newest.parent)
    assert "step 6 is shown now" in predictor.refresh()
    assert predictor.checkpoint.step == 6
    assert predictor.refresh() == ""


def test_a_damaged_or_removed_checkpoint_leaves_the_weights_in_use(run, bars):
    predictor = Predictor(run, bars, device="cpu")
    views = Gallery(bars, predictor.read).views_of("test", 0)
    before = predictor.predict(0, views, [1], views.cameras[0], samples=0).frame
    checkpoint_path(run, 6).write_bytes(b"damaged")
    line = predictor.refresh()
    assert line.startswith("step 6 is shown still: ")
    assert "damaged" in line
    assert "\n" not in line
    assert predictor.refresh() == ""
    shutil.rmtree(run / "checkpoints")
    assert "was removed; it is shown from memory" in predictor.refresh()
    np.testing.assert_array_equal(predictor.predict(0, views, [1], views.cameras[0], samples=0).frame, before)
