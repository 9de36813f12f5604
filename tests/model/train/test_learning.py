"""What a network can learn, which inputs it must ignore, and how a training with a non-finite loss ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_checkpoints import made_run, same, smallest
from synthetic import Lines, Source, batch_of, small, small_inputs, small_model
from torch import Tensor

from gqn_data.errors import LossNotFinite
from gqn_model.checkpoint.checkpoint import checkpoint_steps, load_checkpoint
from gqn_model.config import Config
from gqn_model.model.distributions import Gaussian, kl_divergence
from gqn_model.model.encoders import ENCODERS
from gqn_model.model.gqn import GQN, Elbo
from gqn_model.model.inputs import Context, Inputs, to_device
from gqn_model.train.trainer import train


def _train(run: Path, config: Config, source: Source | None = None, **options: Any) -> None:
    train(made_run(run, steps=(), config=config), config, source or Source(config), **options)


@pytest.mark.slow
def test_a_network_can_memorise_one_scene(tmp_path: Path) -> None:
    lines = Lines()
    config = small(
        steps=800, hidden=32, canvas=32, learning_rate=2e-3, learning_rate_end=1e-4, learning_rate_steps=800,
        warmup_steps=0, clip=0.0, sigma_end=0.1, sigma_steps=400, log_every=100, probe_every=100, picture_every=0,
    )  # fmt: skip
    source = Source(config, scenes=1)
    probe = to_device(batch_of(source.frames, source.poses, 3, seed=0), torch.device("cpu"))
    _train(tmp_path / "run", config, source, loggers=[lines], probe=probe)
    last = lines.records[-1]
    assert last.psnr > 35  # measured: 41.9 dB
    assert last.prior_mean is not None
    assert last.prior_mean > 35


# The KL divergence in closed form.

six_numbers = st.lists(st.floats(-3, 3, allow_nan=False), min_size=6, max_size=6)


def _gaussian(numbers: list[float]) -> tuple[Gaussian, torch.distributions.Normal]:
    mean, log_variance = torch.tensor(numbers, dtype=torch.float64).reshape(2, 1, 3, 1, 1)
    return Gaussian(mean, log_variance), torch.distributions.Normal(mean, log_variance.exp().sqrt())


@given(six_numbers, six_numbers)
def test_kl_divergence_equals_torch_distributions(one: list[float], other: list[float]) -> None:
    (posterior, posterior_torch), (prior, prior_torch) = _gaussian(one), _gaussian(other)
    expected = torch.distributions.kl_divergence(posterior_torch, prior_torch).sum((1, 2, 3))
    torch.testing.assert_close(kl_divergence(posterior, prior), expected, atol=1e-12, rtol=1e-10)
    assert float(kl_divergence(posterior, posterior)) == 0
    assert float(kl_divergence(posterior, prior)) >= -1e-12


def test_kl_divergence_matches_a_monte_carlo_estimate() -> None:
    (posterior, q), (prior, p) = (
        _gaussian([0.5, -0.2, 0.1, 0.3, -0.4, 0.0]),
        _gaussian([0.0, 0.3, -0.5, 0.2, 0.5, -0.3]),
    )
    generator = torch.Generator().manual_seed(0)
    drawn = posterior.draw(torch.randn(200_000, 3, 1, 1, dtype=torch.float64, generator=generator))
    ratio = (q.log_prob(drawn) - p.log_prob(drawn)).sum((1, 2, 3))
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert float(kl_divergence(posterior, prior)) == pytest.approx(float(ratio.mean()), abs=5 * error)


# The context is a set: the order of its views does not matter, and masked slots are ignored.


def _elbo_and_gradients(model: GQN, inputs: Inputs, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
    value = model(inputs, 0.9, noise).value
    return value, list(torch.autograd.grad(value.sum(), list(model.parameters())))


def _setting(representation: str, seed: int) -> tuple[GQN, Inputs, Tensor]:
    config = small(representation=representation)
    noise = torch.randn(3, 3, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model = small_model(config, seed=seed, dtype=torch.float64)
    return model, small_inputs(config, seed=seed, dtype=torch.float64), noise


@given(seed=st.integers(0, 1000), order=st.permutations(range(3)), representation=st.sampled_from(list(ENCODERS)))
@settings(max_examples=10)
def test_the_order_of_context_views_does_not_matter(seed: int, order: list[int], representation: str) -> None:
    model, inputs, noise = _setting(representation, seed)
    permuted = inputs._replace(context=Context(*(part[:, order] for part in inputs.context)))
    (one, gradients), (other, others) = (_elbo_and_gradients(model, some, noise) for some in (inputs, permuted))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    for a, b in zip(gradients, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    drawn = model.predict(inputs.context, inputs.query, noise)
    torch.testing.assert_close(model.predict(permuted.context, inputs.query, noise), drawn, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("representation", ENCODERS)
@pytest.mark.parametrize("fill", [0.7, 1e30, math.inf, math.nan])
def test_masked_slots_affect_neither_elbo_nor_gradients(representation: str, fill: float) -> None:
    model, inputs, noise = _setting(representation, 0)
    frames, poses, mask = inputs.context
    assert not bool(mask.all())
    filled = Context(
        torch.where(mask[:, :, None, None, None], frames, fill), torch.where(mask[:, :, None], poses, fill), mask
    )
    value, gradients = _elbo_and_gradients(model, inputs, noise)
    other, others = _elbo_and_gradients(model, inputs._replace(context=filled), noise)
    assert torch.equal(value, other)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))


# A training with a non-finite loss or weight stops, keeps its finite checkpoints and names the step.


def _break_forward(monkeypatch: pytest.MonkeyPatch, at: int, fault: Callable[[Elbo], Elbo]) -> None:
    """Apply a fault to the result of every forward pass after the first `at`."""
    forward, calls = GQN.forward, [0]

    def breaking(self: GQN, *arguments: Any) -> Elbo:
        elbo = forward(self, *arguments)
        calls[0] += 1
        return fault(elbo) if calls[0] > at else elbo

    monkeypatch.setattr(GQN, "forward", breaking)


FAULTS: dict[str, Callable[[Elbo], Elbo]] = {
    "NaN in the likelihood": lambda elbo: elbo._replace(log_likelihood=elbo.log_likelihood * math.nan),
    "NaN only in the divergence": lambda elbo: elbo._replace(kl=elbo.kl * math.nan),
    "NaN in one step's divergence of one sample": lambda elbo: elbo._replace(
        kl=torch.where(torch.arange(elbo.kl.numel()).view_as(elbo.kl) == 3, math.nan, elbo.kl)
    ),
    "likelihood of minus infinity": lambda elbo: elbo._replace(log_likelihood=elbo.log_likelihood - math.inf),
    "likelihood of plus infinity": lambda elbo: elbo._replace(log_likelihood=elbo.log_likelihood + math.inf),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_non_finite_loss_stops_training_and_names_the_step(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = smallest(steps=20, checkpoint_every=3, log_every=4, probe_every=0, picture_every=0, keep=9)
    _train(tmp_path / "good", config.replaced({"steps": 6}))
    _break_forward(monkeypatch, 7, FAULTS[fault])
    run, lines = tmp_path / "run", Lines()
    with pytest.raises(LossNotFinite, match=r"run: .*step 7\b.* step 6\b.*--learning-rate"):
        _train(run, config, loggers=[lines])
    assert checkpoint_steps(run) == [0, 3, 6]
    good = load_checkpoint(tmp_path / "good", 6)
    assert all(torch.equal(value, good.model[name]) for name, value in load_checkpoint(run).model.items())
    assert [record.step for record in lines.records] == [4]  # non-finite metrics are not logged


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_weight_stops_training_at_the_next_checkpoint(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A bad weight that no later step reads would never show in the loss.
    config = smallest(steps=20, checkpoint_every=2, log_every=100, probe_every=0, picture_every=0)
    forward, calls = GQN.forward, [0]

    def spoiling(self: GQN, *arguments: Any) -> Elbo:
        elbo = forward(self, *arguments)
        calls[0] += 1
        if calls[0] == 4:
            with torch.no_grad():
                self.look.bias[0] = value  # type: ignore[index]
        return elbo

    monkeypatch.setattr(GQN, "forward", spoiling)
    run = tmp_path / "run"
    with pytest.raises(LossNotFinite, match=r"step 4\b.*weight.* step 2\b"):
        _train(run, config)
    assert checkpoint_steps(run) == [0, 2]
    assert same(load_checkpoint(run), load_checkpoint(run, 2))


def test_a_diverged_run_resumes_from_its_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = smallest(steps=8, checkpoint_every=3, log_every=4, probe_every=0, picture_every=0, keep=9)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        _break_forward(patch, 7, FAULTS["likelihood of minus infinity"])
        with pytest.raises(LossNotFinite):
            _train(run, config)
    train(run, config, Source(config), checkpoint=load_checkpoint(run))
    _train(tmp_path / "whole", config)
    assert all(
        torch.equal(value, load_checkpoint(run).model[name])
        for name, value in load_checkpoint(tmp_path / "whole").model.items()
    )
