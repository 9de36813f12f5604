"""Bugs of other implementations, one test each, with proof that the test detects the bug.

A detector asserts a property. It passes on our code and fails once the bug is put into the plain network of `naive`,
the loader, the schedules, the options or the training.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import naive
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_checkpoints import made_run, smallest
from synthetic import Lines, Source, small, small_inputs, small_model
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from gqn_data.errors import CheckpointError
from gqn_data.sampling import batch_sampler, views
from gqn_model import cli
from gqn_model.checkpoint.checkpoint import load_checkpoint
from gqn_model.config import Config, declarations
from gqn_model.data import fixed_batches, training_batches
from gqn_model.model.gqn import GQN, Elbo
from gqn_model.model.inputs import Inputs
from gqn_model.train import schedules
from gqn_model.train.trainer import train

# Returns the divergence per generation step, (B, L), and the predicted mean for noise (L, B, Z, h, w).
Network = Callable[[Inputs, Tensor], tuple[Tensor, Tensor]]


@contextlib.contextmanager
def fails() -> Iterator[None]:
    """Assert that the detector inside the block detects the bug."""
    with pytest.raises(AssertionError):
        yield


def _ours(model: GQN) -> Network:
    def run(inputs: Inputs, noise: Tensor) -> tuple[Tensor, Tensor]:
        elbo = model(inputs, 1.0, noise)
        return elbo.kl, elbo.mean

    return run


def _plain(model: GQN) -> Network:
    def run(inputs: Inputs, noise: Tensor) -> tuple[Tensor, Tensor]:
        parameters = naive.plain_parameters(dict(model.named_parameters()), model.config)
        mean, kls = naive._run(parameters, model.config, inputs.context, inputs.query, noise, inputs.target)
        return torch.stack(kls, 1), mean

    return run


def _setting(**changes: object) -> tuple[GQN, Inputs, Tensor]:
    config = small(**changes)
    inputs = small_inputs(config, dtype=torch.float64)
    model = small_model(config, dtype=torch.float64)
    with torch.no_grad():  # the small initial weights of the heads would hide what they read
        for head in (model.prior_head, model.posterior_head):
            head.weight.mul_(10)
    noise = torch.randn(3, 3, 3, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return model, inputs, noise


# The prior of a step does not depend on the latent of that step.


def _prior_is_independent_of_its_latent(network: Network, inputs: Inputs, noise: Tensor) -> None:
    kl, _ = network(inputs, noise)
    for step in range(len(noise)):
        other = noise.clone()
        other[step:] = -other[step:]
        changed, _ = network(inputs, other)
        assert torch.equal(changed[:, : step + 1], kl[:, : step + 1])
        assert bool((changed[:, step + 1 :] != kl[:, step + 1 :]).all())


@contextlib.contextmanager
def _prior_one_step_late(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Network], Network]]:
    """Yield a wrapper that computes each prior from the state after its latent, recorded in a first pass."""
    states: list[Tensor] = []
    late: list[bool] = [False]
    conv, lstm = naive._conv, naive._lstm

    def convolved(p: Any, name: str, x: Tensor, *rest: Any) -> Tensor:
        if name == "prior_head" and late[0]:
            x = states.pop(0)
        return conv(p, name, x, *rest)

    def stepped(p: Any, c: Any, name: str, *rest: Any) -> tuple[Tensor, Tensor]:
        hidden, cell = lstm(p, c, name, *rest)
        if name.startswith("generation") and not late[0]:
            states.append(hidden)
        return hidden, cell

    def bugged(network: Network) -> Network:
        def run(inputs: Inputs, noise: Tensor) -> tuple[Tensor, Tensor]:
            states.clear()
            late[0] = False
            network(inputs, noise)
            late[0] = True
            return network(inputs, noise)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(naive, "_conv", convolved)
        patch.setattr(naive, "_lstm", stepped)
        yield bugged


@pytest.mark.parametrize("shared", [True, False])
def test_the_prior_of_a_step_does_not_depend_on_its_latent(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, noise = _setting(shared_cores=shared)
    _prior_is_independent_of_its_latent(_ours(model), inputs, noise)
    _prior_is_independent_of_its_latent(_plain(model), inputs, noise)
    with _prior_one_step_late(monkeypatch) as bugged, fails():
        _prior_is_independent_of_its_latent(bugged(_plain(model)), inputs, noise)


# The posterior is computed from the new state of the inference core, which depends on the target.


def _posterior_depends_on_the_target(network: Network, inputs: Inputs, noise: Tensor) -> None:
    kl, _ = network(inputs, noise)
    changed, _ = network(inputs._replace(target=1 - inputs.target), noise)
    assert bool((changed != kl).all())


def test_the_posterior_is_computed_from_the_new_state(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, noise = _setting()
    _posterior_depends_on_the_target(_ours(model), inputs, noise)
    _posterior_depends_on_the_target(_plain(model), inputs, noise)
    before: list[Tensor] = []
    conv, lstm = naive._conv, naive._lstm

    def stepped(p: Any, c: Any, name: str, *rest: Any) -> tuple[Tensor, Tensor]:
        if name.startswith("inference"):
            before.append(rest[-2])
        return lstm(p, c, name, *rest)

    def stale(p: Any, name: str, x: Tensor, *rest: Any) -> Tensor:
        return conv(p, name, before[-1] if name == "posterior_head" else x, *rest)

    monkeypatch.setattr(naive, "_lstm", stepped)
    monkeypatch.setattr(naive, "_conv", stale)
    with fails():
        _posterior_depends_on_the_target(_plain(model), inputs, noise)


# The heads output log variances: nine times the variance is three times the standard deviation.


def _set_heads(model: GQN, log_variance: float) -> None:
    latent = model.config.latent
    with torch.no_grad():
        for head in (model.prior_head, model.posterior_head):
            assert head.bias is not None
            head.weight.zero_()
            head.bias.zero_()
        model.posterior_head.bias[latent:] = log_variance  # type: ignore[index]


def _heads_output_log_variances(network: Network, model: GQN, inputs: Inputs, noise: Tensor) -> None:
    _set_heads(model, 0.0)
    kl, tripled = network(inputs, 3 * noise)
    assert bool((kl == 0).all())
    _set_heads(model, float(np.log(9.0)))
    kl, mean = network(inputs, noise)
    torch.testing.assert_close(mean, tripled, rtol=1e-10, atol=1e-12)
    per_latent = 0.5 * (9 - np.log(9.0) - 1)  # KL of N(0, 9) from N(0, 1)
    torch.testing.assert_close(kl, torch.full_like(kl, per_latent * noise[0, 0].numel()), rtol=1e-10, atol=0)


def test_log_variances_are_not_used_as_log_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, noise = _setting()
    _heads_output_log_variances(_ours(model), model, inputs, noise)
    _heads_output_log_variances(_plain(model), model, inputs, noise)

    def scale(both: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = both.chunk(2, 1)
        return mean, log_scale.exp()

    monkeypatch.setattr(naive, "_heads", scale)
    with fails():
        _heads_output_log_variances(_plain(model), model, inputs, noise)


def test_log_variances_are_not_used_as_log_scales_in_predictions() -> None:
    model, inputs, noise = _setting()
    _set_heads(model, 0.0)
    tripled = model.predict(inputs.context, inputs.query, 3 * noise)
    with torch.no_grad():
        model.prior_head.bias[model.config.latent :] = float(np.log(9.0))  # type: ignore[index]
    torch.testing.assert_close(model.predict(inputs.context, inputs.query, noise), tripled, rtol=1e-10, atol=1e-12)


# The query is never a context view. Views and their number are drawn per scene, not per batch.


def _batches(bars: Path, count: int = 6) -> list[Any]:
    config = small(batch_size=8, context_max=4)
    batches, config = training_batches(str(bars), config)
    with contextlib.closing(batches):
        found = [batch for batch, _ in zip(batches, range(count), strict=False)]
    fixed = fixed_batches(str(bars), config, split="test", context=3, batch_size=10, seed=0)
    with contextlib.closing(fixed):
        return [*found, *fixed]


def _query_is_not_in_the_context(batches: list[Any]) -> None:
    for batch in batches:
        assert not bool((batch.views[:, :1] == batch.views[:, 1:]).any())
        same = (batch.poses[:, :1] == batch.poses[:, 1:]).all(-1)
        assert not bool((same & batch.context_mask).any())


def _views_are_drawn_per_scene(batches: list[Any]) -> None:
    for batch in batches:
        assert len({tuple(sorted(row)) for row in batch.views.tolist()}) > 1
        assert len(set(batch.views[:, 0].tolist())) > 1
    for batch in batches[:-1]:
        assert len(set(batch.context_mask.sum(1).tolist())) > 1


def _choose(change: Callable[[views.ViewChoice], views.ViewChoice]) -> Callable[..., views.ViewChoice]:
    def choose(*arguments: Any, **options: Any) -> views.ViewChoice:
        return change(views.choose_views(*arguments, **options))

    return choose


def test_the_query_is_not_a_context_view(bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _query_is_not_in_the_context(_batches(bars))

    def with_query(choice: views.ViewChoice) -> views.ViewChoice:
        chosen = choice.views.copy()
        chosen[:, 1] = chosen[:, 0]
        return choice._replace(views=chosen)

    monkeypatch.setattr(batch_sampler, "choose_views", _choose(with_query))
    with fails():
        _query_is_not_in_the_context(_batches(bars))


def test_views_and_their_number_are_drawn_per_scene(bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _views_are_drawn_per_scene(_batches(bars))

    def one_set(choice: views.ViewChoice) -> views.ViewChoice:
        return views.ViewChoice(
            np.repeat(choice.views[:1], len(choice.views), 0), choice.context[:1].repeat(len(choice.views))
        )

    def one_number(choice: views.ViewChoice) -> views.ViewChoice:
        few = int(choice.context.min())
        chosen = choice.views.copy()
        chosen[:, 1 + few :] = -1
        return views.ViewChoice(chosen, np.full_like(choice.context, few))

    for bug in (one_set, one_number):
        with monkeypatch.context() as patch, fails():
            patch.setattr(batch_sampler, "choose_views", _choose(bug))
            _views_are_drawn_per_scene(_batches(bars))


# Sigma and learning rate follow their schedules, both as logged and as used.


def _train(run: Path, config: Config, **options: Any) -> None:
    train(made_run(run, steps=(), config=config), config, Source(config), **options)


def _annealing_is_linear(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = smallest(
        steps=12, log_every=1, probe_every=0, picture_every=0, checkpoint_every=100, warmup_steps=0,
        sigma=2.0, sigma_end=0.7, sigma_steps=5, learning_rate=4e-4, learning_rate_end=1e-4, learning_rate_steps=10,
    )  # fmt: skip
    lines, sigmas, rates = Lines(), [], []
    forward = GQN.forward

    def spied(self: GQN, inputs: Inputs, sigma: Any, *rest: Any) -> Elbo:
        sigmas.append(float(sigma))
        return forward(self, inputs, sigma, *rest)

    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append([float(group["lr"]) for group in optimizer.param_groups])
    )
    try:
        with monkeypatch.context() as patch:
            patch.setattr(GQN, "forward", spied)
            _train(run, config, loggers=[lines])
    finally:
        hook.remove()
    for step, record in enumerate(lines.records):
        sigma = 0.7 + 1.3 * max(0, 5 - step) / 5
        rate = 1e-4 + 3e-4 * max(0, 10 - step) / 10
        assert record.sigma == pytest.approx(sigma, rel=1e-9)
        assert sigmas[step] == pytest.approx(sigma, rel=1e-6)
        assert record.learning_rate == pytest.approx(rate, rel=1e-9)
        assert rates[step] == [pytest.approx(rate, rel=1e-9)]
    assert len(lines.records) == len(sigmas) == len(rates) == 12


def test_annealing_is_neither_frozen_nor_ten_times_too_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _annealing_is_linear(tmp_path / "ours", monkeypatch)
    linear = schedules.linear
    bugs: dict[str, Callable[[float, float, int, int], float]] = {
        "frozen": lambda start, end, length, step: linear(start, end, length, 0),
        "short": lambda start, end, length, step: linear(start, end, length / 10, step),  # type: ignore[arg-type]
    }
    for name, bug in bugs.items():
        with monkeypatch.context() as patch, fails():
            patch.setattr(schedules, "linear", bug)
            _annealing_is_linear(tmp_path / name, monkeypatch)


# A flag does not take a value.


def _flags_take_no_values() -> None:
    flags = [one.name for one in declarations() if one.kind is bool]
    assert flags
    for name in flags:

        @click.command()
        @cli.setting_options
        def command(**given: Any) -> None:
            """Accept the settings of a training."""

        result = CliRunner().invoke(command, [f"--{name.replace('_', '-')}", "False"])
        assert result.exit_code == 2


def _truth(text: str) -> bool:
    return bool(text)


def test_a_flag_with_the_value_false_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _flags_take_no_values()

    def as_argparse_does(one: Any) -> Callable[[Any], Any]:
        return click.option("--" + one.name.replace("_", "-"), one.name, type=_truth)

    monkeypatch.setattr(cli, "_setting_option", as_argparse_does)
    with fails():
        _flags_take_no_values()


# A checkpoint holds all state that affects training: optimiser, step, position in the stream.


def _resumes_exactly(folder: Path, change: Callable[[Any], Any]) -> None:
    config = smallest(steps=8, checkpoint_every=4, log_every=4, probe_every=0, picture_every=0, keep=9)
    _train(folder / "whole", config)
    half = made_run(folder / "half", steps=(), config=config)
    train(half, config.replaced({"steps": 4}), Source(config))
    train(half, config, Source(config), checkpoint=change(load_checkpoint(half)))
    whole, again = load_checkpoint(folder / "whole").model, load_checkpoint(half).model
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_checkpoint_holds_optimiser_step_and_position(tmp_path: Path) -> None:
    _resumes_exactly(tmp_path / "ours", lambda checkpoint: checkpoint)
    new = torch.optim.Adam(small_model(smallest()).parameters()).state_dict()
    bugs: dict[str, Callable[[Any], Any]] = {
        "no optimizer": lambda checkpoint: dataclasses.replace(checkpoint, optimizer=new),
        "no step": lambda checkpoint: dataclasses.replace(checkpoint, step=0),
        "no position": lambda checkpoint: dataclasses.replace(checkpoint, loader={"place": 0}),
    }
    for name, bug in bugs.items():
        with fails():
            _resumes_exactly(tmp_path / name, bug)


# Training does not sync with the device between two log lines.


class _SyncCounter(TorchDispatchMode):
    """Counter of operations that sync with a device: values read from tensors, and shapes that depend on values."""

    OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")
    METHODS = ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__", "__index__", "__array__")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        chosen = args[1] if name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple) else ()
        masked = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in chosen)
        self.count += name in self.OPERATIONS or masked
        return func(*args, **(kwargs or {}))

    @contextlib.contextmanager
    def counting(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Count inside the block."""
        with monkeypatch.context() as patch:
            for name in self.METHODS:
                original = getattr(Tensor, name)

                def counted(tensor: Tensor, *rest: Any, _original: Any = original, **named: Any) -> Any:
                    self.count += 1
                    return _original(tensor, *rest, **named)

                patch.setattr(Tensor, name, counted)
            with self:
                yield


def _steps_do_not_sync(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for steps in (3, 9):
        config = smallest(steps=steps, log_every=100, checkpoint_every=100, probe_every=0, picture_every=0)
        syncs = _SyncCounter()
        with syncs.counting(monkeypatch):
            _train(folder / str(steps), config)
        counts.append(syncs.count)
    assert counts[0] == counts[1]
    assert counts[0] > 0


def test_training_does_not_sync_between_two_log_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _steps_do_not_sync(tmp_path / "ours", monkeypatch)
    forward = GQN.forward
    bugs: dict[str, Callable[[Elbo], object]] = {
        "item": lambda elbo: elbo.kl.mean().item(),
        "check": lambda elbo: bool(torch.isfinite(elbo.kl).all()),
        "chosen": lambda elbo: elbo.kl[elbo.kl > 1.0],
    }
    for name, bug in bugs.items():

        def syncing(self: GQN, *arguments: Any, _bug: Any = bug) -> Elbo:
            elbo = forward(self, *arguments)
            _bug(Elbo(*(part.detach() for part in elbo)))
            return elbo

        with monkeypatch.context() as patch, fails():
            patch.setattr(GQN, "forward", syncing)
            _steps_do_not_sync(tmp_path / name, monkeypatch)


# Every weight learns.


def _every_weight_learns(run: Path, shared: bool) -> None:
    config = smallest(
        steps=2, checkpoint_every=2, log_every=1, probe_every=0, picture_every=0, shared_cores=shared, keep=9,
        representation="tower", hidden=8, canvas=6, batch_size=8,
    )  # fmt: skip
    _train(run, config)
    before, after = load_checkpoint(run, 0).model, load_checkpoint(run, 2)
    moments = after.optimizer["state"]
    for number, (name, value) in enumerate(after.model.items()):
        assert number in moments, f"{name} is missing from the optimiser's state"
        assert bool(moments[number]["exp_avg_sq"].any()), f"the gradient of {name} is zero"
        assert not torch.equal(value, before[name]), f"{name} did not change"


@pytest.mark.parametrize("shared", [True, False])
def test_every_weight_learns(shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _every_weight_learns(tmp_path / "ours", shared)
    made = GQN.__init__

    def with_dead_weights(self: GQN, config: Any) -> None:
        made(self, config)
        self.dead = torch.nn.Parameter(torch.ones(3))

    monkeypatch.setattr(GQN, "__init__", with_dead_weights)
    with pytest.raises(CheckpointError, match=r"the state of \d+ parameters"):
        _every_weight_learns(tmp_path / "dead", shared)
