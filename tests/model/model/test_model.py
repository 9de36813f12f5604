"""The network: compared with the naive model, and its properties. See test_peers_bugs.py for bugs of others."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import naive_elbo, naive_prediction, plain_parameters
from synthetic import batch_of, scenes_of, small, small_inputs, small_model

from gqn_data.errors import OptionError
from gqn_model.config import Config, ModelConfig, resolve
from gqn_model.model import convolutions
from gqn_model.model.convolutions import convolve_constant
from gqn_model.model.distributions import Gaussian, gaussian_floor, kl_divergence, log_likelihood
from gqn_model.model.encoders import ENCODERS
from gqn_model.model.gqn import GQN
from gqn_model.model.inputs import Context, Inputs, to_device

CORES = [True, False]


def _noise(config: Config, batch: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    side = config.model.frame_size // 4
    shape = (config.model.core_steps, batch, config.model.latent, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=dtype)


# (frame size, kernel): maps smaller than the kernel, DeepMind's frames (64), and maps of odd size (20, 84).
SLOW = pytest.mark.slow
MAPS = [
    (8, 5),
    (16, 3),
    (20, 5),
    *(pytest.param(*one, marks=SLOW) for one in ((8, 7), (12, 1), (64, 5), (84, 5), (128, 3))),
]


@pytest.mark.parametrize("representation", ENCODERS)
@pytest.mark.parametrize("shared", CORES)
@pytest.mark.parametrize(("size", "kernel"), MAPS)
def test_elbo_gradients_and_predictions_equal_the_naive_model(
    representation: str, shared: bool, size: int, kernel: int
) -> None:
    config = small(representation=representation, shared_cores=shared, frame_size=size, kernel=kernel)
    _assert_equals_naive_model(config, small_inputs(config, dtype=torch.float64))


@pytest.mark.parametrize(
    ("shared", "representation", "changes"),
    [
        (True, "tower", {"core_steps": 1}),
        (False, "pyramid", {"core_steps": 1}),
        (True, "pool", {"pose_numbers": 1}),
        (False, "tower", {"pose_numbers": 9}),
        (False, "pyramid", {"latent": 5}),
        (True, "tower", {"look_channels": 7}),
        (False, "tower", {"look_channels": 2}),
        (False, "tower", {"shared_look": True}),
        (False, "pool", {"shared_look": True, "look_channels": 4}),
        (True, "tower", {"pooled_channels": 5}),
        (False, "tower", {"pooled_channels": 16}),
    ],
)
def test_other_settings_equal_the_naive_model(representation: str, shared: bool, changes: dict[str, int]) -> None:
    config = small(representation=representation, shared_cores=shared, **changes)
    context, _, target = small_inputs(config, dtype=torch.float64)
    poses = torch.rand(3, 4, config.model.pose, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _assert_equals_naive_model(config, Inputs(context._replace(poses=poses[:, 1:]), poses[:, 0], target))


@pytest.mark.parametrize(
    ("representation", "mask"),
    [
        pytest.param("tower", [[1, 1, 1]] * 3, marks=SLOW),
        pytest.param("pyramid", [[1, 0, 0]] * 3, marks=SLOW),
        ("tower", [[0, 0, 1], [1, 0, 1], [0, 1, 0]]),
        ("pool", [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
    ],
)
def test_views_in_one_batch_equal_views_one_by_one(representation: str, mask: list[list[int]]) -> None:
    config = small(representation=representation)
    inputs = small_inputs(config, dtype=torch.float64)
    context = inputs.context._replace(mask=torch.tensor(mask, dtype=torch.bool))
    _assert_equals_naive_model(config, inputs._replace(context=context))


@pytest.mark.parametrize("shared", CORES)
@pytest.mark.parametrize("representation", ENCODERS)
def test_the_gpu_path_of_convolutions_equals_the_naive_model(
    representation: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(convolutions, "convolves_narrow_separately", lambda tensor: calls.append(tensor.shape) or True)
    # The representation has more channels than a narrow part, so that both kinds occur.
    config = small(representation=representation, shared_cores=shared, representation_channels=32, hidden=32)
    assert config.model.hidden >= convolutions.NARROW
    _assert_equals_naive_model(config, small_inputs(config, dtype=torch.float64))
    assert calls


@given(
    channels=st.lists(st.sampled_from([1, 3, 7, 31, 32, 40]), min_size=1, max_size=4),
    side=st.integers(1, 6),
    half=st.integers(0, 2),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_convolving_parts_equals_convolving_their_concatenation(
    channels: list[int], side: int, half: int, biased: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    parts = [draw(2, count, side, side) for count in channels]
    weight, bias = draw(5, sum(channels), 2 * half + 1, 2 * half + 1), draw(5) if biased else None
    learned = [*parts, weight, *([] if bias is None else [bias])]
    expected = torch.nn.functional.conv2d(torch.cat(parts, 1), weight, bias, padding=half)
    for separately in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(convolutions, "convolves_narrow_separately", lambda _, value=separately: value)
            found = convolutions.convolve(parts, weight, bias)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        cotangent = draw(*expected.shape).detach()
        for one, other in zip(
            torch.autograd.grad(found, learned, cotangent),
            torch.autograd.grad(expected, learned, cotangent, retain_graph=True),
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def _assert_equals_naive_model(config: Config, inputs: Inputs) -> None:
    """Compare ELBO, gradients and predictions with the naive model."""
    model = small_model(config, dtype=torch.float64)
    noise = _noise(config)
    parameters = dict(model.named_parameters())
    plain = plain_parameters(parameters, config.model)
    ours = model(inputs, 0.9, noise).value
    naive = naive_elbo(plain, config.model, inputs.context, inputs.query, inputs.target, 0.9, noise)
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=0)
    learned = [parameter for parameter in parameters.values() if parameter.requires_grad]
    our_gradients = torch.autograd.grad(ours.sum(), learned)
    naive_gradients = torch.autograd.grad(naive.sum(), learned)
    for one, other in zip(our_gradients, naive_gradients, strict=True):
        # relative to the largest gradient
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10 * float(other.abs().max()))
    with torch.no_grad():
        ours = model.predict(inputs.context, inputs.query, noise)
        naive = naive_prediction(plain, config.model, inputs.context, inputs.query, noise)
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=1e-13)


@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    side=st.integers(1, 9),
    half=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_convolve_constant_equals_convolving_a_constant_map(
    batch: int, channels: int, side: int, half: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(batch, channels, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, channels, 2 * half + 1, 2 * half + 1, generator=generator, dtype=torch.float64)
    maps = vectors[:, :, None, None].expand(-1, -1, side, side)
    expected = torch.nn.functional.conv2d(maps, weight, padding=half)
    torch.testing.assert_close(convolve_constant(vectors, weight, side), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("representation", ENCODERS)
@pytest.mark.parametrize("shared", CORES)
def test_float32_is_close_to_float64(representation: str, shared: bool) -> None:
    config = small(representation=representation, shared_cores=shared)
    narrow, wide = (
        _loss_and_gradients(small_model(config).to(dtype), small_inputs(config, dtype=dtype), _noise(config).to(dtype))
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(narrow[0].double(), wide[0], rtol=1e-6, atol=0)
    for one, other in zip(narrow[1], wide[1], strict=True):
        assert float((one.double() - other).norm() / other.norm()) < 1e-4


def _loss_and_gradients(
    model: GQN, inputs: Inputs, noise: torch.Tensor
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    loss = -model(inputs, 0.9, noise).value.mean()
    return loss, torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("representation", ENCODERS)
@pytest.mark.parametrize("shared", CORES)
def test_bfloat16_keeps_likelihood_and_divergence_in_float32(representation: str, shared: bool) -> None:
    config = small(representation=representation, shared_cores=shared)
    model, inputs, noise = small_model(config), small_inputs(config), _noise(config, dtype=torch.float32)
    heads: list[torch.dtype] = []
    model.posterior_head.register_forward_hook(lambda _, __, made: heads.append(made.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        elbo = model(inputs, 0.9, noise)
        predicted = model.predict(inputs.context, inputs.query, noise)
    assert set(heads) == {torch.bfloat16}  # the network itself computes in bfloat16
    assert {part.dtype for part in (*elbo, predicted)} == {torch.float32}
    (-elbo.value.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    torch.testing.assert_close(elbo.value, model(inputs, 0.9, noise).value, rtol=5e-3, atol=0)


@pytest.mark.parametrize("shared", CORES)
def test_sigma_may_be_a_tensor_or_a_number(shared: bool) -> None:
    config = small(shared_cores=shared)
    model, inputs, noise = small_model(config), small_inputs(config), _noise(config, dtype=torch.float32)
    assert torch.equal(model(inputs, torch.tensor(0.9), noise).value, model(inputs, 0.9, noise).value)


@pytest.mark.parametrize("representation", ENCODERS)
@pytest.mark.parametrize("shared", CORES)
def test_control_flow_does_not_depend_on_values(representation: str, shared: bool) -> None:
    # Tensors on the meta device have shapes without values: `.item()` or `if` on one of them fails.
    config = small(representation=representation, shared_cores=shared)
    model = small_model(config).to("meta")
    context, query, target = small_inputs(config)
    meta = Inputs(Context(*(part.to("meta") for part in context)), query.to("meta"), target.to("meta"))
    elbo = model(meta, torch.tensor(0.9, device="meta"), _noise(config, dtype=torch.float32).to("meta"))
    assert (elbo.log_likelihood.shape, elbo.kl.shape, elbo.mean.shape) == ((3,), (3, 3), (3, 3, 16, 16))
    (-elbo.value.mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@SLOW
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize(("shared", "representation"), [(True, "tower"), (False, "pool")])
def test_the_compiled_network_equals_the_eager_one(shared: bool, representation: str) -> None:
    config = small(shared_cores=shared, representation=representation, core_steps=4)
    model, inputs, noise = small_model(config), small_inputs(config), _noise(config, dtype=torch.float32)
    expected, expected_gradients = _loss_and_gradients(model, inputs, noise)
    predicted = model.sample(inputs.context, inputs.query, 2, seed=0)
    with warnings.catch_warnings():  # from the compiler
        warnings.simplefilter("ignore")
        model.compile_parts()
        loss, gradients = _loss_and_gradients(model, inputs, noise)
    assert torch.equal(model.sample(inputs.context, inputs.query, 2, seed=0), predicted)  # sampling is not compiled
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-4


@pytest.mark.parametrize(
    ("shared", "representation", "millions"),
    [(False, "tower", 169.0), (True, "tower", 15.9), (True, "pool", 15.9), (False, "pyramid", 169.0)],
)
def test_the_paper_preset_has_the_published_number_of_parameters(
    shared: bool, representation: str, millions: float
) -> None:
    config = resolve("paper", (), {"shared_cores": shared, "representation": representation, "frame_size": 64})
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in GQN(config.model).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize("changes", [{}, {"representation": "pool"}, {"look_channels": 5}])
def test_each_separate_core_has_its_own_look(changes: dict[str, object]) -> None:
    config = small(shared_cores=False, **changes)
    model, inputs, noise = small_model(config), small_inputs(config), _noise(config, dtype=torch.float32)
    channels = config.model.look_channels
    assert model.look.weight.shape == (3 * channels, 3, 4, 4)
    kl = model(inputs, 0.9, noise).kl
    for core in range(3):
        changed = small_model(config)
        with torch.no_grad():
            changed.look.weight[core * channels : (core + 1) * channels] += 1.0
        differs = (changed(inputs, 0.9, noise).kl != kl).all(0)
        assert differs.tolist() == [step >= core for step in range(3)]


def test_the_paper_preset_has_one_look_of_three_channels_per_core() -> None:
    for mods, looks in (((), 12), (("shared_cores",), 1)):
        with torch.device("meta"):
            model = GQN(resolve("paper", mods, {"frame_size": 64}).model)
        assert model.look.weight.shape == (3 * looks, 3, 4, 4)


@pytest.mark.parametrize("shared", CORES)
def test_the_memory_format_does_not_change_the_elbo(shared: bool) -> None:
    config = small(shared_cores=shared)
    model = small_model(config, dtype=torch.float64)
    inputs, noise = small_inputs(config, dtype=torch.float64), _noise(config)
    before = model(inputs, 0.9, noise).value
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(inputs, 0.9, noise).value, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("representation", "millions"), [("tower", 1.96), ("pool", 1.96), ("pyramid", 2.14)])
def test_the_encoders_have_the_published_number_of_parameters(representation: str, millions: float) -> None:
    with torch.device("meta"):
        model = GQN(ModelConfig(frame_size=64, representation=representation))
    count = sum(parameter.numel() for parameter in model.representation.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("representation", ENCODERS)
@pytest.mark.parametrize("size", [32, 64, 84, 128])
def test_every_frame_size_can_be_trained_and_predicted(representation: str, size: int) -> None:
    config = small(frame_size=size, representation=representation, core_steps=2)
    model, inputs = small_model(config), small_inputs(config)
    elbo = model(inputs, 1.0)
    assert elbo.mean.shape == inputs.target.shape
    assert bool(torch.isfinite(elbo.value).all())
    assert model.predict(inputs.context, inputs.query).shape == (3, 3, size, size)


def test_the_pyramid_reads_every_pixel_if_the_map_is_odd() -> None:
    config = small(frame_size=84, representation="pyramid", representation_channels=32)
    model = small_model(config)
    frames = torch.rand(16, 3, 84, 84, requires_grad=True)
    model.representation(frames, torch.zeros(16, 7)).square().sum().backward()
    assert frames.grad is not None
    assert bool((frames.grad.abs().sum((0, 1)) > 0).all())


def test_a_network_without_a_frame_size_is_refused() -> None:
    with pytest.raises(OptionError, match=r"frame_size\b.* 0\b"):
        GQN(ModelConfig())


@pytest.mark.parametrize("representation", ENCODERS)
@pytest.mark.parametrize("numbers", [1, 9])
def test_poses_of_another_length_can_be_trained_and_predicted(representation: str, numbers: int) -> None:
    config = small(representation=representation, pose_numbers=numbers)
    model, (context, _, target) = small_model(config), small_inputs(config)
    poses = torch.rand(*context.mask.shape, numbers)
    inputs = Inputs(context._replace(poses=poses), torch.rand(len(target), numbers), target)
    (-model(inputs, 1.0).value.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name
    before = model.predict(inputs.context, inputs.query, torch.zeros(3, 3, 3, 4, 4))
    turned = model.predict(inputs.context, inputs.query + 1, torch.zeros(3, 3, 3, 4, 4))
    assert not torch.equal(before, turned)  # the pose is read
    with pytest.raises(RuntimeError, match="channels"):
        small_model(small(representation=representation))(inputs, 1.0)


def test_poses_have_seven_numbers_by_default() -> None:
    default, seven = small_model(small()), small_model(small(pose_numbers=7))
    assert [p.shape for p in default.parameters()] == [p.shape for p in seven.parameters()]


@pytest.mark.parametrize("representation", ENCODERS)
@pytest.mark.parametrize("shared", CORES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_gradient_reaches_every_parameter(representation: str, shared: bool, steps: int) -> None:
    # With separate cores the first one reads an empty canvas, and so lacks a weight for it (`down`).
    config = small(representation=representation, shared_cores=shared, core_steps=steps)
    model = small_model(config)
    (-model(small_inputs(config), 1.0).value.mean()).backward()
    assert len(model.canvas.down) == (1 if shared else steps - 1)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == ({"prior_head.weight", *(["canvas.down.0"] if shared else [])} if steps == 1 else set())
    for name, parameter in model.named_parameters():
        if name in frozen:
            continue
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


def test_samples_may_have_different_numbers_of_views() -> None:
    config = small()
    model, inputs = small_model(config, dtype=torch.float64), small_inputs(config, seed=3, dtype=torch.float64)
    counts = inputs.context.mask.sum(1).tolist()
    assert len(set(counts)) > 1
    batched = model.represent(inputs.context)
    for row, count in enumerate(counts):
        single = Context(*(part[row : row + 1, :count] for part in inputs.context))
        torch.testing.assert_close(model.represent(single)[0], batched[row])


def test_predictions_depend_on_the_query_and_not_on_global_noise() -> None:
    config = small()
    model, inputs = small_model(config), small_inputs(config)
    noise = _noise(config, dtype=torch.float32)
    assert torch.equal(
        model.predict(inputs.context, inputs.query, noise), model.predict(inputs.context, inputs.query, noise)
    )
    assert not torch.equal(
        model.predict(inputs.context, inputs.query, noise), model.predict(inputs.context, -inputs.query, noise)
    )


def test_sampling_does_not_change_the_global_generator() -> None:
    config = small()
    model, inputs = small_model(config), small_inputs(config)
    before = torch.get_rng_state()
    first = model.sample(inputs.context, inputs.query, 2, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, model.sample(inputs.context, inputs.query, 2, seed=1))
    assert not torch.equal(first[0], first[1])


def test_log_likelihood_equals_torch_distributions() -> None:
    target, mean = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    expected = torch.distributions.Normal(mean, 0.6).log_prob(target).sum((1, 2, 3))
    torch.testing.assert_close(log_likelihood(target, mean, 0.6), expected)


def test_the_gaussian_floor_has_the_published_value() -> None:
    assert gaussian_floor(64 * 64 * 3, 0.7) == pytest.approx(6909.1, abs=0.05)
    frame = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert float(-log_likelihood(frame, frame, 0.7)) == pytest.approx(gaussian_floor(64 * 64 * 3, 0.7))


def test_bfloat16_inputs_give_float32_likelihood_and_divergence() -> None:
    narrow = torch.rand(2, 3, 64, 64).bfloat16()
    value = log_likelihood(narrow, narrow + 0.01, 0.7)
    assert value.dtype == torch.float32
    wide = log_likelihood(narrow.double(), (narrow + 0.01).double(), 0.7)
    torch.testing.assert_close(value.double(), wide, rtol=1e-5, atol=0)
    gaussian = Gaussian(narrow, narrow)
    assert kl_divergence(gaussian, gaussian).dtype == torch.float32


def test_frames_become_floats_between_0_and_1_with_channels_first() -> None:
    frames, poses = scenes_of(2, 5, 16)
    batch = batch_of(frames, poses, 3, seed=0)
    inputs = to_device(batch, torch.device("cpu"))
    assert torch.equal(inputs.target[1, 2, 3, 4], batch.target[1, 3, 4, 2] / 255)
    assert inputs.context.frames.shape == (2, 3, 3, 16, 16)
