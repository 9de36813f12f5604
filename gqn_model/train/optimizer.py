"""The optimiser: Adam, or Muon for the matrices that a model names and Adam for the rest.

Source: Jordan et al., Muon, https://kellerjordan.github.io/posts/muon; torch's implementation, with Adam's size of an
update (Liu et al., arXiv:2502.16982), so that both take one learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from gqn_model.checkpoint.validate import STATES
from gqn_model.config import TrainingConfig
from gqn_model.model.contract import Network


class JointOptimizer:
    """Optimisers of the parts of a network, used as one.

    The state dict is Adam's, with Muon's state dict as `muon` if it has parameters.

    Args:
        model: the network, on its device.
        training: settings.
        rate: learning rate on the device, for a CUDA graph; None sets Python numbers.
    """

    def __init__(self, model: Network, training: TrainingConfig, rate: Tensor | None = None) -> None:
        self._rate = rate
        matrices: list[Parameter] = []
        others: list[Parameter] = []
        for name, parameter in model.named_parameters():
            is_matrix = training.optimizer == "muon" and model.is_matrix(name, parameter.dim())
            (matrices if is_matrix else others).append(parameter)
        self.parts: dict[str, Optimizer] = {
            "adam": torch.optim.Adam(
                others,
                lr=training.learning_rate if rate is None else rate,
                betas=(0.9, training.beta2),
                eps=1e-8,
                fused=True,
                capturable=rate is not None,
            )
        }
        if matrices:
            self.parts["muon"] = torch.optim.Muon(
                matrices, lr=training.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
            )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts.values() for group in part.param_groups]

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self.param_groups:
            group["lr"] = rate

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take a step with the gradients."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, independent of `cuda_graph`; syncs with the device."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        for group in states["adam"]["param_groups"]:
            group |= {"lr": float(group["lr"]), "capturable": False}
        return states.pop("adam") | states

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of `state_dict`."""
        for name, part in self.parts.items():
            part.load_state_dict(state if name == "adam" else state[name])
        if self._rate is not None:  # the loaded settings may come from a training without CUDA graphs
            for group in self.param_groups:
                group |= {"lr": self._rate, "capturable": True}

    def broadcast(self, send: Callable[[Tensor], Any], *, have: bool) -> None:
        """Give every rank the state of rank 0.

        Args:
            send: broadcasts a tensor in place.
            have: whether this rank has the state; the others create it.
        """
        for name, part in self.parts.items():
            for parameter in (one for group in part.param_groups for one in group["params"] if one.requires_grad):
                if not have:
                    part.state[parameter] = {
                        key: torch.zeros((), dtype=torch.float32, device=parameter.device)
                        if key == "step"
                        else torch.zeros_like(parameter)
                        for key in STATES[name]
                    }
                for key in STATES[name]:
                    send(part.state[parameter][key])
