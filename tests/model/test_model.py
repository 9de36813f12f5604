"""The network: against the plain one, and one test for each bug that peers have."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import naive_elbo, naive_prediction
from synthetic import batch_of, scenes_of, small, small_inputs, small_model

from gqn_data.errors import OptionError
from gqn_model.config import Config, ModelConfig, resolve
from gqn_model.inputs import Context, Inputs, to_device
from gqn_model.likelihood import Gaussian, gaussian_floor, kl_divergence, log_likelihood
from gqn_model.model import GQN
from gqn_model.representations import REPRESENTATIONS

CORES = [True, False]


def _noise(config: Config, batch: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    side = config.model.frame_size // 4
    shape = (config.model.core_steps, batch, config.model.latent, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=dtype)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("shared", CORES)
@pytest.mark.parametrize(("size", "kernel"), [(16, 3), (20, 5)])
def test_elbo_and_gradients_equal_those_of_the_naive_model(
    representation: str, shared: bool, size: int, kernel: int
) -> None:
    config = small(representation=representation, shared_cores=shared, frame_size=size, kernel=kernel)
    model = small_model(config, dtype=torch.float64)
    inputs, noise = small_inputs(config, dtype=torch.float64), _noise(config)
    parameters = dict(model.named_parameters())
    ours = model(inputs, 0.9, noise).value
    naive = naive_elbo(parameters, config.model, inputs.context, inputs.query, inputs.target, 0.9, noise)
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=0)
    our_gradients = torch.autograd.grad(ours.sum(), list(parameters.values()))
    naive_gradients = torch.autograd.grad(naive.sum(), list(parameters.values()))
    for one, other in zip(our_gradients, naive_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shared", CORES)
def test_predictions_equal_those_of_the_naive_model(shared: bool) -> None:
    config = small(shared_cores=shared)
    model = small_model(config, dtype=torch.float64)
    inputs, noise = small_inputs(config, dtype=torch.float64), _noise(config)
    ours = model.predict(inputs.context, inputs.query, noise)
    naive = naive_prediction(dict(model.named_parameters()), config.model, inputs.context, inputs.query, noise)
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=1e-14)


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


@pytest.mark.parametrize("shared", CORES)
def test_the_layout_in_memory_changes_nothing(shared: bool) -> None:
    config = small(shared_cores=shared)
    model = small_model(config, dtype=torch.float64)
    inputs, noise = small_inputs(config, dtype=torch.float64), _noise(config)
    before = model(inputs, 0.9, noise).value
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(inputs, 0.9, noise).value, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("representation", "millions"), [("tower", 1.96), ("pool", 1.96), ("pyramid", 2.14)])
def test_the_representations_have_the_published_number_of_parameters(representation: str, millions: float) -> None:
    with torch.device("meta"):
        model = GQN(ModelConfig(frame_size=64, representation=representation))
    count = sum(parameter.numel() for parameter in model.representation.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("size", [32, 64, 84, 128])
def test_every_frame_size_is_learned_from_and_predicted(representation: str, size: int) -> None:
    config = small(frame_size=size, representation=representation, core_steps=2)
    model, inputs = small_model(config), small_inputs(config)
    elbo = model(inputs, 1.0)
    assert elbo.mean.shape == inputs.target.shape
    assert bool(torch.isfinite(elbo.value).all())
    assert model.predict(inputs.context, inputs.query).shape == (3, 3, size, size)


def test_the_pyramid_reads_every_pixel_where_the_map_is_odd() -> None:
    config = small(frame_size=84, representation="pyramid", representation_channels=32)
    model = small_model(config)
    frames = torch.rand(16, 3, 84, 84, requires_grad=True)
    model.representation(frames, torch.zeros(16, 7)).square().sum().backward()
    assert frames.grad is not None
    assert bool((frames.grad.abs().sum((0, 1)) > 0).all())


def test_a_network_of_no_size_says_what_is_possible() -> None:
    with pytest.raises(OptionError, match="multiples of 4"):
        GQN(ModelConfig())


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("numbers", [1, 9])
def test_poses_of_other_numbers_are_learned_from_and_predicted(representation: str, numbers: int) -> None:
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
    assert not torch.equal(before, turned)  # every one of them is read
    with pytest.raises(RuntimeError, match="channels"):
        small_model(small(representation=representation))(inputs, 1.0)


def test_a_pose_of_seven_numbers_need_not_be_asked_for() -> None:
    open_, asked = small_model(small()), small_model(small(pose_numbers=7))
    assert [p.shape for p in open_.parameters()] == [p.shape for p in asked.parameters()]


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("shared", CORES)
def test_the_gradient_reaches_every_parameter(representation: str, shared: bool) -> None:
    config = small(representation=representation, shared_cores=shared)
    model = small_model(config)
    (-model(small_inputs(config), 1.0).value.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


@given(seed=st.integers(0, 1000), order=st.permutations(range(3)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_context_views_changes_nothing(seed: int, order: list[int]) -> None:
    config = small()
    model, inputs = small_model(config, dtype=torch.float64), small_inputs(config, seed=seed, dtype=torch.float64)
    turned = Context(*(part[:, order] for part in inputs.context))
    torch.testing.assert_close(model.represent(turned), model.represent(inputs.context))


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_masked_views_change_nothing(representation: str) -> None:
    config = small(representation=representation)
    model, inputs = small_model(config), small_inputs(config)
    frames, poses, mask = inputs.context
    assert not bool(mask.all())
    noisy = Context(
        torch.where(mask[:, :, None, None, None], frames, torch.rand_like(frames)),
        torch.where(mask[:, :, None], poses, torch.rand_like(poses)),
        mask,
    )
    assert torch.equal(model.represent(noisy), model.represent(inputs.context))


def test_each_sample_has_its_own_number_of_views() -> None:
    config = small()
    model, inputs = small_model(config, dtype=torch.float64), small_inputs(config, seed=3, dtype=torch.float64)
    counts = inputs.context.mask.sum(1).tolist()
    assert len(set(counts)) > 1
    together = model.represent(inputs.context)
    for row, count in enumerate(counts):
        alone = Context(*(part[row : row + 1, :count] for part in inputs.context))
        torch.testing.assert_close(model.represent(alone)[0], together[row])


def test_the_prior_of_a_step_is_taken_before_its_latent_is_consumed() -> None:
    # With one step the prior knows nothing but its bias, whatever the latent is.
    config = small(core_steps=1)
    model, inputs = small_model(config), small_inputs(config)
    with torch.no_grad():
        model.prior_head.bias.copy_(torch.tensor([0.3, -0.2, 0.1, 0.5, -0.5, 0.2]))
    seen: list[Gaussian] = []
    original = model._head

    def spy(*arguments: object) -> Gaussian:
        seen.append(original(*arguments))  # type: ignore[arg-type]
        return seen[-1]

    model._head = spy  # type: ignore[method-assign]
    kl = model(inputs, 1.0).kl
    prior, posterior = seen
    for channel in range(3):
        assert bool((prior.mean[:, channel] == model.prior_head.bias[channel]).all())
    torch.testing.assert_close(kl[:, 0], kl_divergence(posterior, prior))


def test_the_posterior_of_the_first_step_has_seen_the_target() -> None:
    # A posterior from the stale state would be the same for every target.
    config = small(core_steps=1)
    model, inputs = small_model(config), small_inputs(config)
    other = inputs._replace(target=1 - inputs.target)
    assert not torch.allclose(model(inputs, 1.0).kl, model(other, 1.0).kl)


def test_the_prediction_does_not_see_the_target() -> None:
    config = small()
    model, inputs = small_model(config), small_inputs(config)
    noise = _noise(config, dtype=torch.float32)
    assert torch.equal(
        model.predict(inputs.context, inputs.query, noise), model.predict(inputs.context, inputs.query, noise)
    )
    assert not torch.equal(
        model.predict(inputs.context, inputs.query, noise), model.predict(inputs.context, -inputs.query, noise)
    )


def test_sampling_leaves_the_generator_of_torch_alone() -> None:
    config = small()
    model, inputs = small_model(config), small_inputs(config)
    before = torch.get_rng_state()
    first = model.sample(inputs.context, inputs.query, 2, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, model.sample(inputs.context, inputs.query, 2, seed=1))
    assert not torch.equal(first[0], first[1])


numbers = st.floats(-3, 3, allow_nan=False)


@given(numbers, numbers, numbers, numbers)
def test_the_divergence_is_that_of_torch_distributions(m1: float, v1: float, m2: float, v2: float) -> None:
    def make(mean: float, log_variance: float) -> tuple[Gaussian, torch.distributions.Normal]:
        full = (
            torch.full((2, 1, 2, 2), mean, dtype=torch.float64),
            torch.full((2, 1, 2, 2), log_variance, dtype=torch.float64),
        )
        return Gaussian(*full), torch.distributions.Normal(full[0], full[1].exp().sqrt())

    (q, q_torch), (p, p_torch) = make(m1, v1), make(m2, v2)
    expected = torch.distributions.kl_divergence(q_torch, p_torch).sum((1, 2, 3))
    torch.testing.assert_close(kl_divergence(q, p), expected, atol=1e-12, rtol=1e-10)


def test_the_log_variance_is_no_log_scale() -> None:
    drawn = Gaussian(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), math.log(9.0))).draw(torch.ones(1, 1, 1, 1))
    assert float(drawn) == pytest.approx(3.0)


def test_the_likelihood_is_that_of_torch_distributions() -> None:
    target, mean = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    expected = torch.distributions.Normal(mean, 0.6).log_prob(target).sum((1, 2, 3))
    torch.testing.assert_close(log_likelihood(target, mean, 0.6), expected)


def test_the_gaussian_floor_is_the_published_one() -> None:
    assert gaussian_floor(64 * 64 * 3, 0.7) == pytest.approx(6909.1, abs=0.05)
    frame = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert float(-log_likelihood(frame, frame, 0.7)) == pytest.approx(gaussian_floor(64 * 64 * 3, 0.7))


def test_likelihood_and_divergence_are_wide_where_the_network_is_narrow() -> None:
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
