"""Configuration of a run: settings, their limits, presets and mods.

Frozen dataclasses, validated on creation. Each setting is declared once, with its help and limits; the command line,
the run's `config.json` and error messages all read that declaration. Neither torch nor numpy is imported, so that
`--help` is quick. Sources of the defaults, which are the preset `paper`: Eslami et al., Science 360, 2018, supplement,
sections 3 and 4.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import reprlib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from gqn_data.counts import as_count
from gqn_data.errors import OptionError, UnknownName
from gqn_model.loggers import LOGGERS

T = TypeVar("T", int, float, str, bool)

# Numbers per pose: x, y, z, sin yaw, cos yaw, sin pitch, cos pitch (google-deepmind/gqn-datasets). Sets with other
# cameras have others.
POSE_NUMBERS = 7

MOST_POSE_NUMBERS = 64  # the limit of a manifest

# Limits far above any use. They bound the memory and the time that a file of a stranger or a typing error takes.
MANY = 10**9  # steps
LARGEST = 3.4e38  # of float32
MOST_SCENES = 65_536  # of a batch
MOST_WORKERS = 1024
MOST_SAMPLES = 1024  # of the prior, per scene
MOST_FRAMES = 2000  # of a walk
MOST_SEED = 2**63 - 1  # torch's generators take one bit more
_MOST_CHARACTERS = 4096  # of a text
_MOST_STATE_NUMBERS = 1 << 28  # of one scene; the paper's network has 1.6 million in all generation steps

# The keys of `model.encoders.ENCODERS` and `model.contract.MODELS`, which import torch.
ENCODER_NAMES = ("tower", "pool", "pyramid")
MODEL_NAMES = ("gqn", "plane_sweep")

FITS = ("refuse", "crop", "pad")  # of `gqn_data.loader.SceneLoader`, whose None is refuse

# Sections of `gqn train --help`, in order; the settings of a section in `OWNERS` belong to one model.
GROUPS = ("model", "GQN", "plane sweep", "optimisation", "data", "logging", "device")
OWNERS = {"GQN": "gqn", "plane sweep": "plane_sweep"}


def setting(
    default: T,
    about: str,
    group: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
    several: bool = False,
) -> T:
    """Declare a field: default, help, section of the help (one of `GROUPS`), and limits, which are possible values.

    A number needs both limits.

    With `several` the value is a comma-separated list of `choices`.
    """
    meta = {"about": about, "group": group, "least": least, "most": most, "choices": choices, "several": several}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings that determine the parameters and the arithmetic of the network."""

    model: str = setting("gqn", "the model; --preset implies it", "model", choices=MODEL_NAMES)
    frame_size: int = setting(
        0, "frame height and width, a multiple of 4; 0 for the dataset's", "model", least=0, most=4096
    )
    pose_numbers: int = setting(
        0, "numbers per pose; 0 for the dataset's, 7 for DeepMind's", "model", least=0, most=MOST_POSE_NUMBERS
    )
    representation: str = setting("tower", "encoder of the context views", "GQN", choices=ENCODER_NAMES)
    representation_channels: int = setting(256, "channels of the scene representation r", "GQN", least=8, most=4096)
    hidden: int = setting(128, "channels of the recurrent states", "GQN", least=1, most=4096)
    canvas: int = setting(128, "channels of the canvas u", "GQN", least=1, most=4096)
    latent: int = setting(3, "channels of the latent z of each step", "GQN", least=1, most=1024)
    core_steps: int = setting(12, "generation steps L", "GQN", least=1, most=1000)
    kernel: int = setting(5, "kernel size of cores and heads, odd", "GQN", least=1, most=63)
    shared_cores: bool = setting(False, "use one core for all generation steps", "GQN")
    look_channels: int = setting(3, "channels of the look, which reads the target", "GQN", least=1, most=4096)
    pooled_channels: int = setting(
        0, "channels of the representation that are averaged over the frame", "GQN", least=0, most=4096
    )
    shared_look: bool = setting(False, "use one look for all inference cores, as before version 0.3", "GQN")
    field_of_view: float = setting(
        0.0, "angle between the edges of a frame in degrees; 0 for the dataset's", "plane sweep", least=0, most=179
    )
    yaw_sign: int = setting(
        0,
        "1 if yaw grows counter-clockwise from above, -1 if clockwise; 0 for the dataset's",
        "plane sweep",
        least=-1,
        most=1,
    )
    near: float = setting(
        0.0, "depth of the nearest plane, in units of positions; 0 for the dataset's", "plane sweep", least=0, most=MANY
    )
    far: float = setting(0.0, "depth of the farthest plane; 0 for the dataset's", "plane sweep", least=0, most=MANY)
    planes: int = setting(24, "planes of the sweep", "plane sweep", least=2, most=256)
    width: int = setting(64, "channels of the U-Net", "plane sweep", least=1, most=1024)
    dim: int = setting(128, "features per token", "plane sweep", least=2, most=8192)
    depth: int = setting(3, "blocks of the transformer", "plane sweep", least=1, most=100)
    heads: int = setting(4, "heads of its attention; they divide dim", "plane sweep", least=1, most=256)
    patch: int = setting(8, "pixels along a token's side, even", "plane sweep", least=4, most=64)
    noise: int = setting(
        0, "random numbers per sample, which scale the norms; 0 predicts the mean", "plane sweep", least=0, most=1024
    )

    def __post_init__(self) -> None:
        _check(self)
        if self.frame_size and (self.frame_size % 4 or self.frame_size < 8):
            raise OptionError(
                f"frame_size is {self.frame_size}; possible: multiples of 4 from 8, or 0 for the dataset's"
            )
        if self.model == "gqn":
            self._check_gqn()
        else:
            self._check_plane_sweep()

    def _check_gqn(self) -> None:
        if self.kernel % 2 == 0:
            raise OptionError(f"kernel is {self.kernel}; possible: odd numbers")
        if self.representation_channels % 8:
            raise OptionError(f"representation_channels is {self.representation_channels}; possible: multiples of 8")
        if self.pooled_channels > self.representation_channels:
            raise OptionError(
                f"pooled_channels is {self.pooled_channels}; possible: 0 to {self.representation_channels}, the "
                "representation_channels"
            )
        channels = self.hidden + self.canvas + self.latent + self.representation_channels + self.look_channels
        if channels * self.core_steps * (self.frame_size // 4) ** 2 > _MOST_STATE_NUMBERS:
            raise OptionError(
                f"{channels} channels (hidden, canvas, latent, look_channels and representation_channels) in "
                f"{self.core_steps} core_steps on frames of {self.frame_size} pixels, expected at most "
                f"{_MOST_STATE_NUMBERS} numbers per scene; lower one of them"
            )

    def _check_plane_sweep(self) -> None:
        if self.pose_numbers not in (0, POSE_NUMBERS):
            raise OptionError(
                f"pose_numbers is {self.pose_numbers}; possible for plane_sweep: {POSE_NUMBERS}, of DeepMind's "
                "cameras; pass --model gqn, which takes any numbers"
            )
        if self.dim % self.heads:
            raise OptionError(f"dim is {self.dim}; possible with {self.heads} heads: multiples of {self.heads}")
        if self.patch % 2:
            raise OptionError(f"patch is {self.patch}; possible: even numbers")
        if self.near and self.far and self.near >= self.far:
            raise OptionError(f"near is {self.near}, far {self.far}; possible: near below far")
        if 8 * self.planes * self.frame_size**2 > _MOST_STATE_NUMBERS:
            raise OptionError(
                f"{self.planes} planes on frames of {self.frame_size} pixels, expected at most {_MOST_STATE_NUMBERS} "
                "numbers per view, 8 per pixel and plane; lower one of them"
            )
        tokens = (-(-self.frame_size // self.patch)) ** 2
        if self.heads * tokens**2 > _MOST_STATE_NUMBERS:
            raise OptionError(
                f"{self.heads} heads over {tokens} tokens per view, frame_size / patch squared, expected at most "
                f"{_MOST_STATE_NUMBERS} numbers per pair of views; raise patch, or lower heads or frame_size"
            )

    @property
    def pose(self) -> int:
        """P, the numbers per pose; DeepMind's 7 if the dataset has not set them."""
        return self.pose_numbers or POSE_NUMBERS


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of the optimisation, its data, its device and its output."""

    steps: int = setting(
        2_000_000,
        "training steps; the schedules of tiny and medium scale with them, those of paper are in absolute steps",
        "optimisation",
        least=0,
        most=MANY,
    )
    batch_size: int = setting(36, "scenes per step, over all ranks", "optimisation", least=1, most=MOST_SCENES)
    context_min: int = setting(1, "fewest context views", "data", least=1, most=65_536)
    context_max: int = setting(
        0, "most context views; 0 for the paper's number for the set", "data", least=0, most=65_536
    )
    context_per: str = setting(
        "scene",
        "draw the number of context views per scene, or per batch: faster with plane_sweep",
        "data",
        choices=("scene", "batch"),
    )
    targets: int = setting(1, "query views per scene; they share the scene's context", "data", least=1, most=65_536)
    learning_rate: float = setting(5e-4, "learning rate at the first step", "optimisation", least=0, most=LARGEST)
    learning_rate_end: float = setting(
        5e-5, "learning rate at the end of its schedule", "optimisation", least=0, most=LARGEST
    )
    learning_rate_steps: int = setting(
        1_600_000, "steps of the learning rate schedule", "optimisation", least=1, most=MANY
    )
    learning_rate_schedule: str = setting(
        "linear", "shape of the learning rate schedule", "optimisation", choices=("linear", "cosine")
    )
    warmup_steps: int = setting(0, "steps of linear learning rate warm-up", "optimisation", least=0, most=MANY)
    sigma: float = setting(2.0, "pixel standard deviation at the first step", "GQN", least=1e-3, most=LARGEST)
    sigma_end: float = setting(
        0.7, "pixel standard deviation at the end of its schedule", "GQN", least=1e-3, most=LARGEST
    )
    sigma_steps: int = setting(200_000, "steps of the standard deviation schedule", "GQN", least=1, most=MANY)
    beta2: float = setting(
        0.999, "Adam's decay rate of the mean squared gradient", "optimisation", least=0, most=0.999999
    )
    optimizer: str = setting(
        "adam",
        "adam, or muon for the matrices of the transformer and adam for the rest",
        "plane sweep",
        choices=("adam", "muon"),
    )
    clip: float = setting(0.0, "maximum gradient norm; 0 disables clipping", "optimisation", least=0, most=LARGEST)
    accumulate: int = setting(1, "micro-batches per step, to save memory", "optimisation", least=1, most=MOST_SCENES)
    precision: str = setting(
        "float32",
        "precision of the network; losses are always float32; auto is bf16 on a CPU with AMX or a GPU with bf16",
        "device",
        choices=("float32", "bf16", "auto"),
    )
    tf32: bool = setting(True, "allow TF32 in float32 products and convolutions on a GPU", "device")
    compile: bool = setting(
        False, "compile GQN's cores and encoder in seconds, or the whole plane sweep in a minute", "device"
    )
    cuda_graph: bool = setting(False, "capture a step as a CUDA graph; one GPU only", "device")
    seed: int = setting(0, "seed of weights, noise and scene order", "optimisation", least=0, most=MOST_SEED)
    held_out: int = setting(
        32,
        "training scenes kept out to choose the best checkpoint, at most a tenth; 0 to choose on test scenes",
        "data",
        least=0,
        most=1024,
    )
    fit: str = setting("refuse", "frames that are not square: refuse, crop or pad", "data", choices=FITS)
    workers: int = setting(2, "loader processes; 0 loads in the training process", "data", least=0, most=MOST_WORKERS)
    window: int = setting(
        0, "shards shuffled together; 0 for all on a disk, 8 GB of them in a store", "data", least=0, most=MANY
    )
    remote: str = setting(
        "auto",
        "read shards in a store whole through the cache, or by range",
        "data",
        choices=("auto", "cache", "range"),
    )
    cache: str = setting("", "cache folder; empty for $GQN_CACHE, else ~/.cache/gqn-toolkit", "data")
    cache_gb: float = setting(
        0.0, "cache limit in GB; 0 for 50, or half of the free disk space", "data", least=0, most=MANY
    )
    threads: int = setting(0, "torch threads on the CPU; 0 for torch's default", "device", least=0, most=1024)
    device: str = setting("auto", "name of the device: auto (cuda if available), cpu, cuda or cuda:N", "device")
    logger: str = setting(
        "auto",
        "loggers besides terminal and log.jsonl, comma-separated; auto is tensorboard if installed",
        "logging",
        choices=("auto", "none", *LOGGERS),
        several=True,
    )
    project: str = setting("gqn", "project name at Weights & Biases and trackio", "logging")
    visdom_server: str = setting("localhost", "host or URL of the Visdom server", "logging")
    visdom_port: int = setting(8097, "port of the Visdom server", "logging", least=1, most=65535)
    visdom_env: str = setting("", "Visdom environment; empty for the name of the run's folder", "logging")
    profile: bool = setting(False, "write a trace of ten steps into the run's profile/", "logging")
    log_every: int = setting(100, "steps between log lines", "logging", least=1, most=MANY)
    probe_every: int = setting(
        1000, "steps between evaluations on held-out scenes; 0 for none", "logging", least=0, most=MANY
    )
    picture_every: int = setting(
        5000, "steps between pictures of predictions; 0 for none", "logging", least=0, most=MANY
    )
    checkpoint_every: int = setting(5000, "steps between checkpoints", "logging", least=1, most=MANY)
    keep: int = setting(3, "newest checkpoints to keep, besides the best", "logging", least=1, most=MANY)

    def __post_init__(self) -> None:
        _check(self)
        if self.context_max and self.context_max < self.context_min:
            raise OptionError(
                f"context_max is {self.context_max}, context_min {self.context_min}; "
                f"possible: context_max from {self.context_min}, or 0 for the paper's"
            )
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", self.device):
            raise OptionError(f"device is {self.device!r}; possible: auto, cpu, cuda or cuda:N")


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def replaced(self, changes: Mapping[str, Any]) -> Config:
        """Return a copy with fields of either part changed, by name.

        Raises:
            UnknownName: a name is not a setting.
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
        """Return the configuration as JSON, for `config.json` and checkpoints."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: object, where: object) -> Config:
        """Return the configuration from the value of `to_json`.

        Args:
            value: parsed JSON.
            where: the file, for error messages.

        Raises:
            OptionError: a part is missing, or a field or value is not possible.
        """
        if not isinstance(value, dict) or set(value) != {"model", "training"}:
            raise OptionError(f"{where}: {str(value)[:40]!r}, expected the tables model and training of a run's config")
        flat: dict[str, Any] = {}
        for part in ("model", "training"):
            if not isinstance(value[part], dict):
                raise OptionError(f"{where}: {part} is {str(value[part])[:40]!r}, expected a table of settings")
            flat |= value[part]
        # Runs of versions before 0.3 chose their best checkpoint on test scenes, and all cores had one look.
        flat = {"held_out": 0, "shared_look": True} | flat
        try:
            return Config().replaced(flat)
        except (OptionError, UnknownName) as error:
            raise OptionError(f"{where}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The declaration of one setting: name, part (model or training), section of the help, type, help and limits."""

    name: str
    part: str
    group: str
    kind: type
    default: Any
    about: str
    choices: tuple[str, ...] | None
    several: bool

    @property
    def owner(self) -> str | None:
        """The model that the setting belongs to; None for a setting of every model."""
        return OWNERS.get(self.group)


def declarations() -> Iterator[Declaration]:
    """Yield the declaration of every setting, in order."""
    for part, owner in (("model", ModelConfig), ("training", TrainingConfig)):
        kinds = typing.get_type_hints(owner)
        for one in fields(owner):
            yield Declaration(
                name=one.name,
                part=part,
                group=one.metadata["group"],
                kind=kinds[one.name],
                default=one.default,
                about=one.metadata["about"],
                choices=one.metadata["choices"],
                several=one.metadata["several"],
            )


def declaration(name: str) -> Declaration:
    """Return the declaration of the setting with that name.

    Raises:
        UnknownName: the name is not a setting; the message offers the nearest, or all if none is near.
    """
    known = _by_name()
    if name not in known:
        raise UnknownName("setting", str(name)[:80], known)
    return known[name]


@functools.cache
def _by_name() -> dict[str, Declaration]:
    return {one.name: one for one in declarations()}


def _check(config: ModelConfig | TrainingConfig) -> None:
    """Give every value its declared type, and raise OptionError unless it is within its limits."""
    kinds = typing.get_type_hints(type(config))
    for one in fields(config):
        choices, least, most = (one.metadata[key] for key in ("choices", "least", "most"))
        value = _as_kind(one.name, getattr(config, one.name), kinds[one.name], least, most)
        object.__setattr__(config, one.name, value)  # frozen; numbers of numpy and torch become Python's
        for name in value.split(",") if one.metadata["several"] else [value]:
            if choices is not None and name not in choices:
                near = get_close_matches(name, choices, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise OptionError(f"{one.name} is {name!r}; possible: {', '.join(choices)}{hint}")


def _as_kind(name: str, value: Any, kind: type, least: Any, most: Any) -> Any:
    """Return the value of a setting as its declared type.

    Raises:
        OptionError: it is of another type, or out of its limits.
    """
    if kind is int:
        return as_count(name, value, least, most)
    with contextlib.suppress(AttributeError, RuntimeError, ValueError):  # of several numbers
        value = value.item()
    if kind is float and type(value) is int:
        value = float(value) if -most <= value <= most else math.inf
    if type(value) is not kind:
        raise OptionError(f"{name} is {reprlib.repr(value)}; possible: a value of type {kind.__name__}")
    if kind is float and not least <= value <= most:  # NaN, too, is out of them
        raise OptionError(f"{name} is {value}; possible: from {least:g} to {most:g}")
    if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
        raise OptionError(f"{name} has {len(value)} characters; possible: at most {_MOST_CHARACTERS}")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise OptionError(f"{name} is {value!a}; possible: text in UTF-8") from None
    return value


# Schedules that `resolve` scales with the steps, in a preset that sets its number of steps.
_SCHEDULES = ("learning_rate_steps", "warmup_steps", "sigma_steps")

# What the presets of the plane sweep share; docs/training.md lists the alternatives tried.
_SWEEP: dict[str, Any] = {
    "model": "plane_sweep",
    "context_per": "batch",
    "targets": 4,
    "learning_rate": 2e-3,
    "learning_rate_end": 4e-5,
    "learning_rate_schedule": "cosine",
    "beta2": 0.98,
    "optimizer": "muon",
    "clip": 10.0,
    "precision": "auto",
}

# A preset lists what differs from the defaults above, which are the paper's. A model's first preset is its default.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # Learns in minutes on two CPU cores; docs/training.md lists the alternatives tried.
    "tiny": {
        "frame_size": 32,
        "representation": "tower",
        "representation_channels": 32,
        "hidden": 32,
        "canvas": 32,
        "core_steps": 4,
        "kernel": 3,
        "shared_cores": True,
        "look_channels": 32,
        "steps": 6000,
        "batch_size": 16,
        "context_min": 2,
        "learning_rate": 2e-3,
        "learning_rate_end": 5e-5,
        "learning_rate_steps": 5999,  # at the last step, counted from 0
        "warmup_steps": 50,
        "sigma_steps": 700,
        "clip": 1000.0,
        # Small steps gain nothing from a second thread and lose much on shared cores; the other core loads.
        "threads": 1,
        "workers": 1,
        "log_every": 100,
        "probe_every": 500,
        "picture_every": 1000,
        "checkpoint_every": 1000,
    },
    # Hours on two CPU cores, minutes on a GPU: frames of 64 pixels, a fourteenth of the parameters of the paper's
    # network with shared cores; docs/training.md shows what it learns.
    "medium": {
        "representation_channels": 64,
        "hidden": 64,
        "canvas": 64,
        "core_steps": 6,
        "kernel": 3,
        "shared_cores": True,
        "look_channels": 32,
        "pooled_channels": 16,
        "steps": 20_000,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "learning_rate_end": 5e-5,
        "learning_rate_steps": 19_999,
        "warmup_steps": 100,
        "sigma_steps": 2000,
        "clip": 4000.0,
        "workers": 1,
        "log_every": 100,
        "probe_every": 500,
        "picture_every": 1000,
        "checkpoint_every": 1000,
    },
    # Minutes on two CPU cores, one of them decoding; docs/training.md lists the alternatives tried.
    "sweep_tiny": {
        **_SWEEP,
        "frame_size": 32,
        "steps": 2000,
        "batch_size": 8,
        "learning_rate_steps": 1999,
        "warmup_steps": 50,
        "threads": 1,
        "workers": 1,
        "log_every": 50,
        "probe_every": 200,
        "picture_every": 500,
        "checkpoint_every": 200,
    },
    # An hour on two CPU cores, on frames of 64 or 84 pixels as DeepMind made them.
    "sweep_medium": {
        **_SWEEP,
        "dim": 192,
        "depth": 4,
        "heads": 6,
        "steps": 6000,
        "batch_size": 8,
        "learning_rate_steps": 5999,
        "warmup_steps": 50,
        "workers": 1,
        "log_every": 50,
        "probe_every": 500,
        "picture_every": 1000,
        "checkpoint_every": 200,
    },
    # For one GPU, 20 minutes as planned; not measured.
    "sweep_large": {
        **_SWEEP,
        "planes": 32,
        "dim": 256,
        "depth": 6,
        "heads": 8,
        "steps": 20_000,
        "batch_size": 32,
        "learning_rate_steps": 19_999,
        "warmup_steps": 200,
        "workers": 4,
        "log_every": 100,
        "probe_every": 1000,
        "picture_every": 2000,
        "checkpoint_every": 1000,
    },
}

# Mods combine; they are applied to the preset in the given order.
MODS: dict[str, dict[str, Any]] = {
    "shared_cores": {"shared_cores": True},
    "separate_cores": {"shared_cores": False},
    "pool": {"representation": "pool"},
    "pyramid": {"representation": "pyramid"},
    "bf16": {"precision": "bf16"},
    "compiled": {"compile": True},
    "cuda_graph": {"cuda_graph": True},
}


def default_preset(model: str | None = None) -> str:
    """Return the preset of a model for which none is named; None stands for gqn."""
    return next(name for name, changes in PRESETS.items() if changes.get("model", "gqn") == (model or "gqn"))


def mods_of(model: str | None) -> list[str]:
    """Return the mods that only a model has; None for those of every model."""
    return [name for name, changes in MODS.items() if {declaration(one).owner for one in changes} == {model}]


def resolve(preset: str | None = None, mods: Iterable[str] = (), explicit: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration of a preset, then mods, then explicit settings; later ones win.

    With other `steps`, the schedules of `tiny` and `medium` keep their share of the training and end at its last step.
    Those of `paper` keep their absolute steps.

    Args:
        preset: a name in `PRESETS`; None for the default of the explicit `model`, `paper` without one.
        mods: names in `MODS`.
        explicit: settings by name.

    Raises:
        UnknownName: a name is not a preset, mod or setting.
        OptionError: a value is not possible, or a mod or setting belongs to another model than the preset.
    """
    explicit = dict(explicit or {})
    if preset is None:
        Config().replaced({"model": explicit.get("model", "gqn")})  # raises for an unknown model
        preset = default_preset(explicit.get("model"))
    if preset not in PRESETS:
        raise UnknownName("preset", preset, PRESETS)
    own = PRESETS[preset]
    model, changes = own.get("model", "gqn"), dict(own)
    for mod in mods:
        if mod not in MODS:
            raise UnknownName("mod", mod, MODS)
        _check_owner(f"mod {mod}", MODS[mod], model)
        changes |= MODS[mod]
    if explicit.get("model", model) != model:
        possible = ", ".join(name for name, of in PRESETS.items() if of.get("model", "gqn") == explicit["model"])
        raise OptionError(
            f"preset is {preset!r}, a preset of {model}; possible with model {explicit['model']}: {possible or 'none'}"
        )
    for name in explicit:
        _check_owner(name, [name], model)
    config = Config().replaced(changes | explicit)
    if "steps" not in own:
        return config
    stretch = (config.training.steps - 1) / (own["steps"] - 1)
    scaled = {name: max(1, round(own[name] * stretch)) for name in _SCHEDULES if name in own and name not in explicit}
    return config.replaced(scaled)


def _check_owner(what: str, names: Iterable[str], model: str) -> None:
    """Raise OptionError if a setting belongs to another model."""
    for name in names:
        owner = declaration(name).owner
        if owner not in (None, model):
            raise OptionError(f"{what} belongs to the model {owner}, found the model {model}; leave it out")
