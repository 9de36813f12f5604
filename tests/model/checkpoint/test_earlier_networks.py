"""Runs and exported weights from before the look had settings: the same network, to the last digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_checkpoints import made_run, overwrite, smallest
from safetensors import safe_open
from safetensors.torch import save_file
from synthetic import small, small_inputs

from gqn_model import load_model, load_safetensors
from gqn_model.checkpoint import safetensors
from gqn_model.checkpoint.checkpoint import checkpoint_path, load_checkpoint
from gqn_model.checkpoint.safetensors import export_weights
from gqn_model.config import Config
from gqn_model.model.gqn import GQN

ADDED = ("look_channels", "pooled_channels", "shared_look")

# ELBO of each sample, computed by version 0.2 in float64 with the weights and noise of `_elbo`.
EARLIER = {
    (True, "tower"): [-968.7355612882875, -846.4968737953964, -943.0794842229736],
    (True, "pyramid"): [-780.3426051230216, -756.1352577956002, -789.2987794087865],
    (False, "tower"): [-930.5249701277995, -814.7544064609151, -865.6764640905959],
    (False, "pyramid"): [-1327.9850024539896, -1013.4623632514733, -1062.1594201942792],
}


def _without_look(config: Config) -> dict[str, Any]:
    """Return the JSON that earlier versions wrote."""
    value: dict[str, Any] = json.loads(json.dumps(config.to_json()))
    for name in ADDED:
        del value["model"][name]
    return value


def _elbo(config: Config) -> torch.Tensor:
    """Return the ELBO with weights that depend on their order, names and shapes only."""
    model = GQN(config.model).double()
    state = {}
    for at, (name, value) in enumerate(model.state_dict().items()):
        state[name] = 0.3 * torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + at).view(value.shape)
    model.load_state_dict(state)
    noise = torch.sin(torch.arange(3 * 3 * 3 * 16, dtype=torch.float64)).view(3, 3, 3, 4, 4)
    with torch.no_grad():
        elbo: torch.Tensor = model(small_inputs(config, dtype=torch.float64), 0.9, noise).value
    return elbo


@pytest.mark.parametrize(("shared", "representation"), EARLIER)
def test_an_earlier_config_gives_the_earlier_network(shared: bool, representation: str) -> None:
    written = small(shared_cores=shared, representation=representation)
    config = Config.from_json(_without_look(written), "here")
    assert (config.model.look_channels, config.model.pooled_channels, config.model.shared_look) == (3, 0, True)
    look = [(n, tuple(v.shape)) for n, v in GQN(config.model).state_dict().items() if n.startswith("look.")]
    assert look == [("look.weight", (3, 3, 4, 4)), ("look.bias", (3,))]
    expected = torch.tensor(EARLIER[shared, representation], dtype=torch.float64)
    torch.testing.assert_close(_elbo(config), expected, rtol=1e-12, atol=0)


def test_an_earlier_run_with_separate_cores_loads_its_weights(tmp_path: Path) -> None:
    config = smallest(shared_cores=False, shared_look=True)
    run = made_run(tmp_path / "run", config=config)
    expected = load_checkpoint(run, 4).model
    (run / "config.json").write_text(json.dumps(_without_look(config)))
    value = torch.load(checkpoint_path(run, 4), weights_only=True)
    value["config"] = _without_look(config)
    torch.save(value, tmp_path / "earlier.pt")
    overwrite(run, 4, (tmp_path / "earlier.pt").read_bytes())
    model = load_model(run, 4)
    assert model.config == config.model
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_earlier_exported_weights_load(tmp_path: Path) -> None:
    config = smallest(shared_cores=False, shared_look=True)
    run, path = made_run(tmp_path / "run", config=config), tmp_path / "now.safetensors"
    export_weights(run, path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()[safetensors._KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    facts["config"] = _without_look(config)
    facts.pop("sha256")
    facts["sha256"] = safetensors._checksum(facts, tensors)
    earlier = tmp_path / "earlier.safetensors"
    save_file(tensors, earlier, {safetensors._KEY: json.dumps(facts)})
    assert load_safetensors(earlier).config == config.model
