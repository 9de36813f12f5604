"""What every model promises to training, evaluation and export; several targets at once."""

from __future__ import annotations

import pytest
import torch
from synthetic import batch_of, scenes_of, small, small_inputs, small_network

from gqn_data.errors import OptionError
from gqn_model.config import MODEL_NAMES, Config
from gqn_model.model.contract import LatentNetwork, Network, meta_network, network_class
from gqn_model.model.distributions import log_likelihood
from gqn_model.model.inputs import Inputs, to_device

CPU = torch.device("cpu")


def _several(size: int) -> Inputs:
    """Return 3 samples with 3 slots of context and 2 targets each, in float64."""
    frames, poses = scenes_of(3, 5, size)
    return to_device(batch_of(frames, poses, 3, seed=0, targets=2), CPU, torch.float64)


def _one(inputs: Inputs, number: int) -> Inputs:
    return Inputs(inputs.context, inputs.query[:, number], inputs.target[:, number])


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_targets_together_are_predicted_like_each_alone(model: str) -> None:
    network = small_network(small(model=model)).double()
    inputs = _several(16)
    together = network.predict_mean(inputs.context, inputs.query)
    assert together.shape == inputs.target.shape
    for number in range(2):
        alone = network.predict_mean(inputs.context, inputs.query[:, number])
        torch.testing.assert_close(together[:, number], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_the_loss_of_several_targets_is_the_mean_of_their_losses(model: str) -> None:
    network = small_network(small(model=model)).double()
    inputs, sigma = _several(16), torch.tensor(0.9, dtype=torch.float64)
    noise = network.step_noise(0, 0, 6, CPU).double()
    found = network.loss(network(inputs, sigma, noise), inputs.target)
    assert found.frames.shape == inputs.target.shape
    assert found.kl.shape == (6, network.latent_steps)
    by_target = noise.unflatten(1, (3, 2)) if noise.numel() else noise.view(0, 3, 2)
    alone = [
        network.loss(network(_one(inputs, number), sigma, by_target[:, :, number]), inputs.target[:, number]).value
        for number in range(2)
    ]
    assert float(found.value.detach()) == pytest.approx(float(sum(alone).detach()) / 2, rel=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_the_loss_reaches_its_floor_without_errors(model: str) -> None:
    config = small(model=model)
    network, inputs = small_network(config), small_inputs(config)
    output = network(inputs, torch.tensor(0.7), network.step_noise(0, 0, 3, CPU))
    exact = inputs.target
    if isinstance(network, LatentNetwork):
        output = output._replace(log_likelihood=log_likelihood(exact, exact, 0.7), kl=torch.zeros_like(output.kl))
    else:
        output = exact
    assert float(network.loss(output, exact).value) == pytest.approx(network.loss_floor(0.7), rel=1e-6)


def test_only_a_model_with_a_distribution_draws_samples() -> None:
    assert issubclass(network_class("gqn"), LatentNetwork)
    assert not issubclass(network_class("plane_sweep"), LatentNetwork)
    for model in MODEL_NAMES:
        network = small_network(small(model=model))
        assert (network.latent_steps > 0) == isinstance(network, LatentNetwork)


def test_samples_of_several_targets_have_their_axis() -> None:
    config = small()
    network, inputs = small_network(config).double(), _several(16)
    assert isinstance(network, LatentNetwork)
    assert network.sample(inputs.context, inputs.query, 4, seed=1).shape == (4, 3, 2, 3, 16, 16)
    assert network.sample(inputs.context, inputs.query[:, 0], 4, seed=1).shape == (4, 3, 3, 16, 16)


@pytest.mark.parametrize(
    "config",
    [small(hidden=4096, kernel=63), small(model="plane_sweep", dim=8192, depth=64)],
    ids=["gqn", "plane_sweep"],
)
def test_a_network_too_large_is_refused_with_the_options_that_make_it_smaller(config: Config) -> None:
    with pytest.raises(OptionError, match="lower --"):
        meta_network(config.model)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_the_state_of_a_network_is_its_parameters(model: str) -> None:
    # Checkpoints and exports check names against parameters; a buffer in the state would be refused.
    network: Network = small_network(small(model=model))
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
