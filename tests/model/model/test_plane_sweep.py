"""The plane sweep: geometry against a sweep written with loops, empty slots, targets together, padding."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gqn_data.errors import OptionError
from gqn_data.loader import SceneLoader
from gqn_model.config import ModelConfig, resolve
from gqn_model.model.inputs import Context, Inputs
from gqn_model.model.plane_sweep import COST_SCALE, FINE, PlaneSweep
from gqn_model.train.step import TrainStep

Array = NDArray[np.float64]


def settings(**changes: Any) -> ModelConfig:
    """Return the settings of a small network."""
    small: dict[str, Any] = {"model": "plane_sweep", "frame_size": 16, "planes": 4, "width": 8, "dim": 16, "depth": 2}
    lens: dict[str, Any] = {"field_of_view": 60.0, "yaw_sign": 1, "near": 0.5, "far": 2.0, "heads": 2, "patch": 8}
    return ModelConfig(**(small | lens | changes))


def build(**changes: Any) -> PlaneSweep:
    """Return a small network in float64, none of whose weights is negligible."""
    torch.manual_seed(0)
    model = PlaneSweep(settings(**changes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def pose(x: float, y: float, z: float, yaw: float, pitch: float) -> list[float]:
    return [x, y, z, math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)]


def poses_about(count: int, seed: int) -> Tensor:
    """Return cameras near the origin that look roughly along x: (count, 7)."""
    dice = np.random.default_rng(seed)
    return torch.tensor(
        [pose(*dice.uniform(-0.3, 0.3, 3), *dice.uniform(-0.4, 0.4, 2)) for _ in range(count)], dtype=torch.float64
    )


def scene(views: int, targets: int, *, size: int = 16, batch: int = 2, seed: int = 0) -> tuple[Context, Tensor]:
    """Return random frames of random cameras, and poses of targets."""
    torch.manual_seed(seed)
    frames = torch.rand(batch, views, 3, size, size, dtype=torch.float64)
    poses = poses_about(batch * (views + targets), seed).view(batch, -1, 7)
    return Context(frames, poses[:, :views], torch.ones(batch, views, dtype=torch.bool)), poses[:, views:]


def rotation(camera: Tensor, yaw_sign: int) -> Array:
    """Return the matrix from a camera's (forward, left, up) to the world: pitch about y, then yaw about z."""
    yaw = yaw_sign * math.atan2(camera[3], camera[4])
    pitch = math.atan2(camera[5], camera[6])
    about_z = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[math.cos(pitch), 0, -math.sin(pitch)], [0, 1, 0], [math.sin(pitch), 0, math.cos(pitch)]])
    return about_z @ about_y


def ray(camera: Tensor, row: int, column: int, size: int, config: ModelConfig) -> Array:
    """Return the world's direction through the middle of a pixel, of depth 1 along the axis."""
    half = math.tan(math.radians(config.field_of_view / 2))
    left, up = (half * (1 - 2 * (at + 0.5) / size) for at in (column, row))
    return rotation(camera, config.yaw_sign) @ np.array([1, left, up])


def project(point: Array, camera: Tensor, size: int, config: ModelConfig) -> tuple[float, float] | None:
    """Return row and column of a point in a frame, in pixels from its upper left corner; None if it is not seen."""
    depth, left, up = rotation(camera, config.yaw_sign).T @ (point - camera[:3].numpy())
    half = math.tan(math.radians(config.field_of_view / 2)) * depth
    if depth <= 0 or abs(left) >= half or abs(up) >= half:
        return None
    return (1 - up / half) * size / 2, (1 - left / half) * size / 2


def colour_at(frame: Array, row: float, column: float) -> Array:
    """Return the colour of a frame (3, H, W) at the nearest of FINE x FINE places per pixel, interpolated linearly."""
    size = frame.shape[-1]
    y, x = ((math.floor(at * FINE) + 0.5) / FINE - 0.5 for at in (row, column))
    y, x = min(max(y, 0), size - 1), min(max(x, 0), size - 1)
    top, left = min(int(y), size - 2), min(int(x), size - 2)
    total = np.zeros(3)
    for i, share_y in ((top, top + 1 - y), (top + 1, y - top)):
        for j, share_x in ((left, left + 1 - x), (left + 1, x - left)):
            total += share_y * share_x * frame[:, i, j]
    return total


def naive_sweep(context: Context, query: Tensor, depths: Tensor, size: int, config: ModelConfig) -> list[Array]:
    """Return colours (T, S, S, 2, D, 3), numbers of cameras (T, S, S, D) and costs of the first sample, by loops."""
    shape = (len(query), size, size, len(depths))
    colours, seen, cost = np.zeros((*shape[:3], 2, shape[3], 3)), np.zeros(shape), np.zeros(shape)
    frame_size = config.frame_size
    for t, target in enumerate(query):
        apart = []
        for k, camera in enumerate(context.poses[0]):
            turn = rotation(camera, config.yaw_sign)[:, 0] - rotation(target, config.yaw_sign)[:, 0]
            apart.append((float((camera[:3] - target[:3]).square().sum()) + float(turn @ turn), k))
        order = [k for _, k in sorted(apart) if context.mask[0, k]][:3]
        for i, j, d in np.ndindex(*shape[1:]):
            point = target[:3].numpy() + float(depths[d]) * ray(target, i, j, frame_size, config)
            found = []
            for k in order:
                at = project(point, context.poses[0, k], frame_size, config)
                if at is not None:
                    found.append(colour_at(context.frames[0, k].numpy() - 0.5, *at))
            found = found[:2]
            seen[t, i, j, d] = len(found)
            if found:
                colours[t, i, j, 0, d], colours[t, i, j, 1, d] = found[0], found[-1]
            cost[t, i, j, d] = {0: 0.3, 1: 0.1, 2: np.abs(colours[t, i, j, 0, d] - colours[t, i, j, 1, d]).mean()}[
                len(found)
            ]
    smooth = np.zeros_like(cost)
    for i, j in np.ndindex(size, size):
        smooth[:, i, j] = cost[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean((1, 2))
    return [colours, seen, smooth]


class Swept(NamedTuple):
    """The volume of a sweep: colours (B T, S, S, 2, D, 3), cameras that see a point and costs (B T, S, S, D)."""

    colours: Tensor
    seen: Tensor
    cost: Tensor


def sweep_of(model: PlaneSweep, context: Context, query: Tensor) -> Swept:
    volume = model.sweep(model.encode(context), query)
    return Swept(volume[..., :3], volume[..., 0, :, 3] + 1, volume[..., 1, :, 3] / COST_SCALE)


@pytest.mark.parametrize("yaw_sign", [1, -1])
@pytest.mark.parametrize("size", [8, 12])  # 12 is padded to 16
def test_the_sweep_equals_one_written_with_loops(yaw_sign, size):
    model = build(frame_size=size, yaw_sign=yaw_sign, planes=3)
    context, query = scene(5, 2, size=size, batch=1)
    context.mask[0, 1] = False
    swept = sweep_of(model, context, query)
    expected = naive_sweep(context, query[0], model.depths, model.size, model.config)
    assert {0, 1, 2} <= set(expected[1].ravel())
    for found, wanted in zip(swept, expected):
        torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=1e-9)


@pytest.mark.parametrize("yaw_sign", [1, -1])
def test_a_textured_plane_is_reproduced_by_the_plane_at_its_depth(yaw_sign):
    model = build(frame_size=32, yaw_sign=yaw_sign, planes=5)
    config, size = model.config, 32
    target = torch.tensor(pose(0.1, -0.2, 0.1, 0.5, 0.2), dtype=torch.float64)
    others = [pose(0.2, 0.1, 0.0, 0.4, 0.1), pose(0.0, -0.4, 0.3, 0.6, 0.1)]
    cameras = torch.tensor(others, dtype=torch.float64)
    facing = rotation(target, yaw_sign)  # the plane's axes: normal, left, up

    def seen_by(camera: Tensor) -> Array:
        """Return the frame (3, H, W) of a camera that looks at a plane at depth 1 in front of the target."""
        frame = np.zeros((3, size, size))
        for i, j in np.ndindex(size, size):
            along = ray(camera, i, j, size, config)
            start = camera[:3].numpy() - target[:3].numpy()
            at = start + along * (1 - facing[:, 0] @ start) / (facing[:, 0] @ along)
            left, up = facing[:, 1] @ at, facing[:, 2] @ at
            frame[:, i, j] = 0.5 + 0.4 * np.sin([5 * left + 1, 6 * up, 4 * left + 5 * up])
        return frame

    assert float(model.depths[2]) == pytest.approx(1.0)
    frames = torch.from_numpy(np.stack([seen_by(camera) for camera in cameras]))[None]
    swept = sweep_of(model, Context(frames, cameras[None], torch.ones(1, 2, dtype=torch.bool)), target[None, None])
    truth = torch.from_numpy(seen_by(target)).permute(1, 2, 0) - 0.5
    both = swept.seen[0, ..., 2] == 2
    assert both.float().mean() > 0.2
    errors = (swept.colours[0] - truth[:, :, None, None]).abs().mean(-1)[both].mean(0)  # (2, D)
    assert errors[:, 2].max() < 0.02
    assert errors[:, [0, 1, 3, 4]].min() > 0.05
    costs = swept.cost[0][both].mean(0)
    assert costs[2] < 0.03 < costs[[0, 1, 3, 4]].min()


def test_a_camera_does_not_see_what_is_behind_it():
    model = build()
    query = torch.tensor([[pose(0, 0, 0, 0, 0)]], dtype=torch.float64)
    there = torch.tensor([[pose(5, 0, 0, 0, 0)]], dtype=torch.float64)  # looks away from all points
    facing = torch.tensor([[pose(5, 0, 0, math.pi, 0)]], dtype=torch.float64)
    frames, mask = torch.rand(1, 1, 3, 16, 16, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    assert not sweep_of(model, Context(frames, there, mask), query).seen.any()
    assert sweep_of(model, Context(frames, facing, mask), query).seen.all()


@pytest.mark.parametrize("held", [0.0, math.nan, math.inf])
def test_empty_slots_change_nothing_whatever_they_hold(held):
    model = build()
    context, query = scene(3, 2)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    frames, poses = context.frames.clone(), context.poses.clone()
    frames[0, 1], poses[0, 1] = held, held
    found = model.predict(Context(frames, poses, mask), query)
    without = Context(context.frames[:1, [0, 2]], context.poses[:1, [0, 2]], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found[:1], model.predict(without, query[:1]), rtol=0, atol=1e-12)
    found.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_targets_together_equal_targets_one_by_one():
    model = build()
    context, query = scene(3, 4)
    together = model.predict(context, query).detach()
    assert together.shape == (2, 4, 3, 16, 16)
    assert together.min() >= 0
    assert together.max() <= 1
    assert len({float(frame.sum()) for frame in together.flatten(0, 1)}) == 8
    for t in range(4):
        torch.testing.assert_close(
            model.predict(context, query[:, t : t + 1])[:, 0], together[:, t], rtol=0, atol=1e-12
        )


def test_a_network_without_noise_has_the_weights_of_one_that_had_none():
    plain, noisy = build(), build(noise=3)
    assert set(noisy.state_dict()) - set(plain.state_dict()) == {"modulate.weight"}
    context, query = scene(3, 2)
    noisy.load_state_dict(plain.state_dict(), strict=False)
    zeros = torch.zeros(1, 4, 3, 1, 1, dtype=torch.float64)
    for found in (noisy.predict_mean(context, query), noisy.predict(context, query, zeros)):
        torch.testing.assert_close(found, plain.predict(context, query), rtol=0, atol=1e-12)
    with pytest.raises(NotImplementedError, match="predicts the mean"):
        plain.sample(context, query, 1, seed=0)


def test_samples_together_equal_samples_one_by_one(monkeypatch):
    model = build(noise=3)
    context, query = scene(3, 2)
    encoded = model.encode(context)
    noise = torch.randn(5, 4, 3, 1, 1, dtype=torch.float64)  # of 2 scenes with 2 targets each
    together = model.draw(encoded, query, noise).detach()
    assert together.shape == (5, 2, 2, 3, 16, 16)
    assert len({float(frame.sum()) for frame in together.flatten(0, 2)}) == 20
    for s in range(5):
        alone = model.predict(context, query, noise[s : s + 1])
        torch.testing.assert_close(alone, together[s], rtol=0, atol=1e-12)
        for t in range(2):
            one = model.predict(context, query[:, t], noise[s : s + 1, t::2])
            torch.testing.assert_close(one, together[s, :, t], rtol=0, atol=1e-12)
    monkeypatch.setattr("gqn_model.model.plane_sweep._DRAWN_AT_ONCE", 8)  # two of the five samples
    torch.testing.assert_close(model.draw(encoded, query, noise), together, rtol=0, atol=1e-12)


def test_a_sample_has_one_noise_at_all_targets_of_a_scene():
    model = build(noise=3)
    context, query = scene(3, 1)
    twice = query.expand(-1, 2, -1)
    target = torch.rand(2, 2, 3, 16, 16, dtype=torch.float64)
    noise = model.step_noise(0, 5, 4, torch.device("cpu")).double()
    for found in (
        model(Inputs(context, twice, target), torch.tensor(1.0), noise),
        model.sample(context, twice, 2, seed=1),
    ):
        torch.testing.assert_close(found[:, :, 0], found[:, :, 1], rtol=0, atol=1e-12)
        assert (found[0] - found[1]).abs().max() > 1e-3
        assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3


def test_the_loss_of_two_samples_is_the_energy_score_of_patches():
    model = build(noise=3)
    first, second, target = (torch.rand(2, 3, 3, 16, 12, dtype=torch.float64).numpy() for _ in range(3))
    total = 0.0
    for i, t, row, column in np.ndindex(2, 3, 2, 2):  # patches of 8 x 8, and of 8 x 4 at the edge
        rows, columns = slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8)
        one, other, true = (frames[i, t, :, rows, columns].ravel() for frames in (first, second, target))
        to_truth = (math.dist(one, true) + math.dist(other, true)) / 2
        total += (to_truth - math.dist(one, other) / 2) / math.sqrt(one.size) / 24
    found = model.loss(torch.from_numpy(np.stack([first, second])), torch.from_numpy(target))
    # Near 0 the root is smoothed, which shifts it by 0.003 at most.
    assert float(found.value) == pytest.approx(total, abs=0.003)
    assert found.frames.shape == (2, 3, 3, 16, 12)
    assert found.kl.shape == (6, 0)


@pytest.mark.slow
def test_samples_of_a_scene_with_two_answers_show_either():
    # Frames are black or white, which no context tells: the mean is grey, and half of the samples are dark.
    model = build(noise=2).float()
    context, query = scene(1, 1, batch=1)
    context = Context(*(part.expand(16, *part.shape[1:]) for part in context))
    context = context._replace(frames=context.frames.float() * 0, poses=context.poses.float())
    query = query.float().expand(16, -1, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    dice = torch.Generator().manual_seed(0)
    for step in range(150):
        target = torch.randint(2, (16, 1, 1, 1, 1), generator=dice).float().expand(-1, -1, 3, 16, 16)
        noise = model.step_noise(0, step, 16, torch.device("cpu"))
        output = model(Inputs(context, query, target), torch.tensor(1.0), noise)
        optimizer.zero_grad()
        model.loss(output, target).value.backward()
        optimizer.step()
    samples = model.sample(Context(*(part[:1] for part in context)), query[:1], 64, seed=0).mean((1, 2, 3, 4, 5))
    assert ((samples - 0.5).abs() > 0.4).float().mean() > 0.7
    assert 0.25 < samples.mean() < 0.75


def test_every_context_view_and_its_pose_matter():
    model = build()
    context, query = scene(4, 1)
    plain = model.predict(context, query)
    for k in range(4):
        frames, poses = context.frames.clone(), context.poses.clone()
        frames[:, k] = 1 - frames[:, k]
        poses[:, k, 0] += 0.1
        assert (model.predict(context._replace(frames=frames), query) - plain).abs().max() > 1e-6
        assert (model.predict(context._replace(poses=poses), query) - plain).abs().max() > 1e-6


def test_frames_of_84_pixels_are_padded_and_cropped():
    model = build(frame_size=84, planes=2)
    context, query = scene(2, 1, size=84, batch=1)
    found = model.predict(context, query)
    assert (model.size, found.shape) == (88, (1, 1, 3, 84, 84))
    # Pixels that pad a target look past the edge of its lens, where an equal camera sees nothing.
    same = sweep_of(model, context._replace(poses=query.expand(-1, 2, -1)), query)
    assert (same.seen[0, :84, :84] == 2).all()
    assert not same.seen[0, 84:].any()
    assert not same.seen[0, :, 84:].any()


def test_bfloat16_predicts_nearly_the_same():
    model = build().float()
    context, query = scene(3, 2)
    single = Context(context.frames.float(), context.poses.float(), context.mask)
    plain = model.predict(single, query.float())
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.predict(single, query.float())
    assert rough.dtype == torch.float32
    assert 0 < (rough - plain).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"frame_size": 0}, "frame_size"),
        ({"pose_numbers": 5}, "--model gqn"),
        ({"yaw_sign": 0}, "--yaw-sign"),
        ({"field_of_view": 0.0}, "--field-of-view"),
        ({"far": 0.0}, "--far"),
    ],
)
def test_what_the_network_cannot_know_is_refused_with_the_remedy(changes, named):
    with pytest.raises(OptionError, match=named):
        build(**changes)


@pytest.mark.parametrize(
    "changes", [{"near": 2.0}, {"patch": 5}, {"heads": 3}, {"planes": 1}, {"patch": 4, "frame_size": 512}]
)
def test_settings_that_no_network_can_have_are_refused(changes):
    with pytest.raises(OptionError, match=next(iter(changes))):
        settings(**changes)


@pytest.mark.slow
def test_one_scene_is_overfitted_to_35_db():
    # 38.0 dB on a CPU with AVX-512.
    torch.set_num_threads(1)
    loader = SceneLoader("render:rooms_ring_camera", batch_size=1, context="all", frame_size=32, workers=0)
    batch = next(iter(loader))
    frames, poses = batch.frames.movedim(-1, -3).float() / 255, batch.poses
    lens = {"field_of_view": 50.0, "yaw_sign": 1, "near": 0.35, "far": 2.4}
    changes = {"steps": 400, "learning_rate": 4e-3, "precision": "float32", **lens}
    take_step = TrainStep(resolve("sweep_tiny", (), changes), torch.device("cpu"))
    context = Context(frames[:, :3], poses[:, :3], torch.ones(1, 3, dtype=torch.bool))
    for step in range(400):
        result = take_step(step, Inputs(context, poses[:, 3:], frames[:, 3:]))
    errors = (result.micro_batches[0].frames - frames[:, 3:]).square().mean((-3, -2, -1))
    assert -10 * errors.log10().mean() > 35
