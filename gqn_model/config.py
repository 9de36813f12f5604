"""The configuration of a run: what may be chosen, what is possible, and the presets.

Frozen dataclasses, validated when made. A field is declared once, with its help and its limits; the command line
(`options`), the run's `config.json` and the messages of errors all read that declaration. Imports neither torch
nor numpy, so that `--help` is quick. Sources of the numbers of `paper`: Eslami et al., Science 360, 2018,
supplement, sections 3 and 4.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from gqn_data.errors import OptionError, UnknownName
from gqn_model.loggers import LOGGERS

T = TypeVar("T", int, float, str, bool)

# The numbers of a pose: x, y, z, sin yaw, cos yaw, sin pitch, cos pitch (google-deepmind/gqn-datasets); sets with
# other cameras have others.
POSE_NUMBERS = 7


MOST_POSE_NUMBERS = 64  # the limit of a manifest

# The keys of `model.encoders.ENCODERS`, without importing torch.
ENCODER_NAMES = ("tower", "pool", "pyramid")


def setting(
    default: T,
    about: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
    several: bool = False,
) -> T:
    """A field with its default, one line of help, and its limits, which are part of the possible values.

    Where `several` may be chosen, the value is a list of names separated by commas.
    """
    meta = {"about": about, "least": least, "most": most, "choices": choices, "several": several}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What decides the parameters and the arithmetic of the network."""

    frame_size: int = setting(0, "height and width of a frame, a multiple of 4; 0: the dataset's", least=0)
    pose_numbers: int = setting(0, "numbers of a pose; 0: the dataset's, which are 7 for DeepMind's cameras", least=0)
    representation: str = setting("tower", "network that reads the context views", choices=ENCODER_NAMES)
    representation_channels: int = setting(256, "channels of the scene representation r", least=8)
    hidden: int = setting(128, "channels of the states of both cores", least=1)
    canvas: int = setting(128, "channels of the canvas u", least=1)
    latent: int = setting(3, "channels of the latent z at each step", least=1)
    core_steps: int = setting(12, "generation steps, L", least=1)
    kernel: int = setting(5, "side of the kernels of cores and heads, odd", least=1)
    shared_cores: bool = setting(False, "one core for all steps in place of one a step")

    def __post_init__(self) -> None:
        _check(self)
        if self.frame_size and (self.frame_size % 4 or self.frame_size < 8):
            raise OptionError(
                f"frame_size is {self.frame_size}; possible: multiples of 4 from 8, or 0 for the dataset's"
            )
        if self.pose_numbers > MOST_POSE_NUMBERS:
            raise OptionError(f"pose_numbers is {self.pose_numbers}; possible: 0 to {MOST_POSE_NUMBERS}")
        if self.kernel % 2 == 0:
            raise OptionError(f"kernel is {self.kernel}; possible: odd numbers")
        if self.representation_channels % 8:
            raise OptionError(f"representation_channels is {self.representation_channels}; possible: multiples of 8")

    @property
    def pose(self) -> int:
        """P, the numbers of a pose; where no dataset has told another, DeepMind's."""
        return self.pose_numbers or POSE_NUMBERS


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What decides the course of a training and what it leaves behind."""

    steps: int = setting(2_000_000, "training steps in all", least=0)
    batch_size: int = setting(36, "scenes in a step, over all ranks", least=1)
    context_min: int = setting(1, "least number of context views", least=1)
    context_max: int = setting(0, "largest number of context views; 0: the paper's for the set", least=0)
    learning_rate: float = setting(5e-4, "learning rate at the first step", least=0)
    learning_rate_end: float = setting(5e-5, "learning rate at the end of its schedule", least=0)
    learning_rate_steps: int = setting(1_600_000, "length of the learning rate's schedule", least=1)
    warmup_steps: int = setting(0, "steps over which the learning rate first rises from 0", least=0)
    sigma: float = setting(2.0, "deviation of a pixel at the first step", least=1e-3)
    sigma_end: float = setting(0.7, "deviation of a pixel at the end of its schedule", least=1e-3)
    sigma_steps: int = setting(200_000, "length of the deviation's schedule", least=1)
    clip: float = setting(0.0, "largest norm of the gradient; 0: no limit", least=0)
    accumulate: int = setting(
        1, "parts of a batch that are computed one after another and taken as one step, to save memory", least=1
    )
    precision: str = setting(
        "float32", "of the network's arithmetic; likelihood and KL are float32 always", choices=("float32", "bf16")
    )
    tf32: bool = setting(True, "TF32 in the float32 products and convolutions of a GPU")
    compile: bool = setting(False, "torch.compile of the cores' steps and the representation: seconds at the start")
    cuda_graph: bool = setting(False, "capture a step as a CUDA graph: for steps bound by launching; one GPU")
    seed: int = setting(0, "seed of weights, noise and order of the scenes", least=0)
    workers: int = setting(2, "processes that read and decode batches; 0: the trainer itself", least=0)
    window: int = setting(
        0, "shards whose scenes are shuffled together; 0: all on a disk, 8 GB of them in a store", least=0
    )
    remote: str = setting(
        "auto",
        "how shards in a store are read: whole, through the cache, or by range, the views of a batch alone",
        choices=("auto", "cache", "range"),
    )
    cache: str = setting("", "folder for copies of shards in a store; empty: $GQN_CACHE, else ~/.cache/gqn-toolkit")
    cache_gb: float = setting(0.0, "GB that these copies may take; 0: 50, or half of the disk's room", least=0)
    threads: int = setting(0, "threads of torch on the CPU; 0: as torch chooses", least=0)
    device: str = setting("auto", "auto (cuda where there is one), cpu, cuda, cuda:1 ...")
    logger: str = setting(
        "auto",
        "loggers beside terminal and log.jsonl, separated by commas; auto: tensorboard where it is installed",
        choices=("auto", "none", *LOGGERS),
        several=True,
    )
    project: str = setting("gqn", "project of the run at Weights & Biases and trackio")
    visdom_server: str = setting("localhost", "host or URL of the Visdom server")
    visdom_port: int = setting(8097, "port of the Visdom server", least=1, most=65535)
    visdom_env: str = setting("", "environment at the Visdom server; empty: the name of the run's folder")
    profile: bool = setting(False, "write a trace of ten steps into the run's profile/")
    log_every: int = setting(100, "steps between two lines of the log", least=1)
    probe_every: int = setting(1000, "steps between two measurements on test scenes; 0: none", least=0)
    picture_every: int = setting(5000, "steps between two pictures of predictions; 0: none", least=0)
    checkpoint_every: int = setting(5000, "steps between two checkpoints", least=1)
    keep: int = setting(3, "checkpoints kept, the newest; the best is kept beside them", least=1)

    def __post_init__(self) -> None:
        _check(self)
        if self.context_max and self.context_max < self.context_min:
            raise OptionError(
                f"context_max is {self.context_max}, context_min {self.context_min}; "
                f"possible: context_max from {self.context_min}, or 0 for the paper's"
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that is chosen for a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def replaced(self, changes: Mapping[str, Any]) -> Config:
        """This configuration with fields changed, by name, whichever part they belong to.

        Raises:
            UnknownName: no field has that name.
            OptionError: a value is not possible.
        """
        parts: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
        for name, value in changes.items():
            parts[declaration(name).part][name] = value
        return Config(
            model=dataclasses.replace(self.model, **parts["model"]),
            training=dataclasses.replace(self.training, **parts["training"]),
        )

    def to_json(self) -> dict[str, dict[str, Any]]:
        """The configuration as JSON, for `config.json` and checkpoints."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: object, where: object) -> Config:
        """The configuration that `to_json` gave.

        Args:
            value: what was read.
            where: the file, for the message.

        Raises:
            OptionError: a part is missing, or a field or value is not possible.
        """
        if not isinstance(value, dict) or set(value) != {"model", "training"}:
            raise OptionError(f"{where}: expected the parts model and training; is it the config of a run?")
        flat: dict[str, Any] = {}
        for part in ("model", "training"):
            if not isinstance(value[part], dict):
                raise OptionError(f"{where}: {part} is no table of settings; write the file anew")
            flat |= value[part]
        try:
            return Config().replaced(flat)
        except (OptionError, UnknownName) as error:
            raise OptionError(f"{where}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """One field as it was declared: name, type, help and limits."""

    name: str
    part: str
    kind: type
    default: Any
    about: str
    choices: tuple[str, ...] | None
    several: bool


def declarations() -> Iterator[Declaration]:
    """Every field of the configuration, in order."""
    for part, owner in (("model", ModelConfig), ("training", TrainingConfig)):
        kinds = typing.get_type_hints(owner)
        for one in fields(owner):
            yield Declaration(
                name=one.name,
                part=part,
                kind=kinds[one.name],
                default=one.default,
                about=one.metadata["about"],
                choices=one.metadata["choices"],
                several=one.metadata["several"],
            )


def declaration(name: str) -> Declaration:
    """The declaration of the field of that name.

    Raises:
        UnknownName: there is none; the message offers the nearest, and all names where none is near.
    """
    known = _by_name()
    if name not in known:
        raise UnknownName("setting", name, known)
    return known[name]


@functools.cache
def _by_name() -> dict[str, Declaration]:
    return {one.name: one for one in declarations()}


def _check(config: ModelConfig | TrainingConfig) -> None:
    kinds = typing.get_type_hints(type(config))
    for one in fields(config):
        value, kind = getattr(config, one.name), kinds[one.name]
        # bool is an int to isinstance; a count of True is a mistake all the same
        right = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
        if not right:
            raise OptionError(f"{one.name} is {value!r}; possible: a value of type {kind.__name__}")
        choices, least, most = (one.metadata[key] for key in ("choices", "least", "most"))
        for name in value.split(",") if one.metadata["several"] else [value]:
            if choices is not None and name not in choices:
                near = get_close_matches(name, choices, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise OptionError(f"{one.name} is {name!r}; possible: {', '.join(choices)}{hint}")
        # written so that NaN fails it
        if (least is not None and not value >= least) or (most is not None and not value <= most):
            limits = f"from {least:g}" + (f" to {most:g}" if most is not None else "")
            raise OptionError(f"{one.name} is {value!r}; possible: {limits}")


# A preset is what differs from the defaults above, which are the paper's.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # Learns in minutes on two CPU cores; docs/training.md has what was tried.
    "tiny": {
        "frame_size": 32,
        "representation": "tower",
        "representation_channels": 32,
        "hidden": 32,
        "canvas": 32,
        "core_steps": 4,
        "kernel": 3,
        "shared_cores": True,
        "steps": 6000,
        "batch_size": 16,
        "context_min": 2,
        "learning_rate": 2e-3,
        "learning_rate_end": 5e-5,
        "learning_rate_steps": 6000,
        "warmup_steps": 50,
        "sigma_steps": 700,
        "clip": 1000.0,
        # Steps this small gain nothing from a second thread and lose much where cores are shared; the other core reads.
        "threads": 1,
        "workers": 1,
        "log_every": 100,
        "probe_every": 500,
        "picture_every": 1000,
        "checkpoint_every": 1000,
    },
    # Hours on two CPU cores, minutes on a GPU: whole frames of 64 pixels, a fourteenth of the parameters of the
    # paper's network with shared cores; docs/training.md has what it learns.
    "medium": {
        "representation_channels": 64,
        "hidden": 64,
        "canvas": 64,
        "core_steps": 6,
        "kernel": 3,
        "shared_cores": True,
        "steps": 20_000,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "learning_rate_end": 5e-5,
        "learning_rate_steps": 20_000,
        "warmup_steps": 100,
        "sigma_steps": 2000,
        "clip": 4000.0,
        "workers": 1,
        "log_every": 100,
        "probe_every": 500,
        "picture_every": 1000,
        "checkpoint_every": 1000,
    },
}

# Mods combine: they are applied over the preset in the order given.
MODS: dict[str, dict[str, Any]] = {
    "shared_cores": {"shared_cores": True},
    "separate_cores": {"shared_cores": False},
    "pool": {"representation": "pool"},
    "pyramid": {"representation": "pyramid"},
    "bf16": {"precision": "bf16"},
    "compiled": {"compile": True},
    "cuda_graph": {"cuda_graph": True},
}


def resolve(preset: str = "paper", mods: Iterable[str] = (), explicit: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a preset, then mods, then explicit settings; the later wins.

    Raises:
        UnknownName: no preset, mod or setting of that name.
        OptionError: a value is not possible.
    """
    if preset not in PRESETS:
        raise UnknownName("preset", preset, PRESETS)
    changes = dict(PRESETS[preset])
    for mod in mods:
        if mod not in MODS:
            raise UnknownName("mod", mod, MODS)
        changes |= MODS[mod]
    return Config().replaced(changes | dict(explicit or {}))
