"""Validation of tensors from a file as the weights of a network: names, shapes and dtypes, before any computation."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gqn_data.errors import CheckpointError, OptionError
from gqn_model.config import Config, ModelConfig
from gqn_model.model.contract import meta_network

_REMEDY = "use the config that belongs to it, or the version that wrote it"
_NAMED = 3

# State of a parameter under torch's names, by optimiser: "step" is a number, the others have the parameter's shape.
STATES = {"adam": ("step", "exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}

# What a trainer of any version sets, or leaves to torch. The learning rate is set at each step.
_MUON = {
    "momentum": 0.95,
    "nesterov": True,
    "weight_decay": 0.0,
    "ns_coefficients": (3.4445, -4.775, 2.0315),
    "ns_steps": 5,
    "eps": 1e-7,
    "adjust_lr_fn": "match_rms_adamw",
}
_ADAM = {
    "eps": 1e-8,
    "weight_decay": 0,
    "amsgrad": False,
    "maximize": False,
    "capturable": False,
    "differentiable": False,
}


class Shape(NamedTuple):
    """Dtype, as torch names it, and size of a tensor."""

    dtype: str
    size: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {'x'.join(map(str, self.size)) or 'scalar'}"


def shape_of(value: Any) -> Shape:
    """Return the shape of a dense CPU tensor; for anything else a shape that matches no parameter."""
    plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    if not plain or value.is_quantized:
        return Shape(type(value).__name__ + ", not a dense tensor,", ())
    return Shape(str(value.dtype).removeprefix("torch."), tuple(value.shape))


def network_shapes(config: ModelConfig, where: object) -> dict[str, Shape]:
    """Return the names and shapes of a network's parameters, in order, without allocating them.

    Args:
        config: configuration with the frame size set.
        where: the file, for error messages.

    Raises:
        CheckpointError: the configuration does not describe a network.
    """
    try:
        model = meta_network(config)
    except (OptionError, RuntimeError, ValueError, OverflowError, TypeError) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise CheckpointError(
            f"{where}: its configuration does not describe a network ({reason}); {_REMEDY}"
        ) from error
    return {name: Shape(str(p.dtype).removeprefix("torch."), tuple(p.shape)) for name, p in model.named_parameters()}


def check_weights(found: Mapping[Any, Shape], expected: Mapping[str, Shape], where: object) -> None:
    """Raise unless names and shapes are those of the network.

    Raises:
        CheckpointError: some differ; the message lists the first.
    """
    wrong = [
        f"{name} ({found[name]}, expected {shape})"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    faults = [
        _count("missing", [name for name in expected if name not in found]),
        _count("unexpected", [_printable(name) for name in found if name not in expected]),
        _count("of another shape or type", wrong),
    ]
    if any(faults):
        raise CheckpointError(f"{where}: not the weights of this network: {'; '.join(filter(None, faults))}; {_REMEDY}")


def check_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise unless all weights are finite: training never saves others.

    Raises:
        CheckpointError: some are not; the message names the first.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{where}: {name} holds NaN or infinity, expected finite weights; restore the file, or use another step"
            )


def check_optimizer(value: Mapping[str, Any], expected: Mapping[str, Shape], config: Config, where: object) -> None:
    """Raise unless an optimiser's state belongs to a network with such parameters and to its settings.

    Args:
        value: the state dict of `gqn_model.train.optimizer.JointOptimizer`.
        expected: shapes of the parameters by name, in order.
        config: configuration of the run.
        where: the file, for error messages.

    Raises:
        CheckpointError: it does not.
    """
    model = meta_network(config.model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    muon = config.training.optimizer == "muon"
    matrices = {name for name, shape in expected.items() if muon and model.is_matrix(name, len(shape.size))}
    settings: dict[str, dict[str, Any]] = {"adam": {"betas": (0.9, config.training.beta2), **_ADAM}, "muon": _MUON}
    try:
        for part, names in {"adam": expected.keys() - matrices, "muon": matrices}.items():
            if names:
                ordered = [name for name in expected if name in names]
                _check_part(
                    value if part == "adam" else value[part],
                    STATES[part],
                    [expected[name] for name in ordered],
                    {number for number, name in enumerate(ordered) if value["state"] and name not in frozen},
                    settings[part],
                )
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where}: not the optimiser's state of this network ({error}); {_REMEDY}") from error


def _check_part(
    value: Mapping[str, Any],
    states: tuple[str, ...],
    shapes: list[Shape],
    trained: set[int],
    settings: Mapping[str, Any],
) -> None:
    """Raise an exception of Python unless the state of one optimiser has such parameters and settings.

    Args:
        value: its state dict.
        states: names of the state of a parameter.
        shapes: of its parameters.
        trained: numbers of the parameters that have a state, besides frozen ones; empty before the first step.
        settings: those of each of its groups.
    """
    numbers = [number for group in value["param_groups"] for number in group["params"]]
    for group in value["param_groups"]:
        for name, expected_value in settings.items():
            if group[name] != expected_value:
                raise ValueError(f"{name} is {reprlib.repr(group[name])}, expected {expected_value}")
    if numbers != list(range(len(shapes))) or not set(value["state"]) <= set(numbers):
        raise ValueError(f"{len(numbers)} parameters, expected {len(shapes)}")
    if not trained <= set(value["state"]) or (value["state"] and not trained):
        raise ValueError(f"the state of {len(value['state'])} parameters, expected {len(trained)}")
    for number, held in value["state"].items():
        if set(held) != set(states):
            raise ValueError(f"parameter {number} has {_printable(list(held))}, expected {', '.join(states)}")
        for name, tensor in held.items():
            # torch's fused kernels do not check shapes: they would read and write outside of a smaller tensor.
            found, expected = shape_of(tensor), Shape("float32", () if name == "step" else shapes[number].size)
            if found != expected:
                raise ValueError(f"{name} of parameter {number} is {found}, expected {expected}")
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} of parameter {number} holds NaN or infinity")


def _count(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names)} {what}: {', '.join(names[:_NAMED])}{more}" if names else ""


def _printable(name: object) -> str:
    """Return a name from a file, safe to show in a message of one line."""
    return "".join(filter(str.isprintable, str(name)))[:80]
