"""Batches for training and evaluation, from the loader of `gqn_data` with a run's settings.

The trainer accepts anything that follows the protocol `Batches`, so that a test can bring another source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from gqn_data.dataset import open_dataset
from gqn_data.errors import CorruptFrame, OptionError, RunMismatch
from gqn_data.io.atomic import human_bytes
from gqn_data.io.paths import DatasetPath, RenderAddress, parse_dataset_path
from gqn_data.loader import Batch, SceneLoader
from gqn_data.sampling.permutation import ENDLESS, key, permute
from gqn_data.schema.cameras import POSE_FIELDS
from gqn_model.checkpoint.checkpoint import pose_order
from gqn_model.checkpoint.run_folder import DatasetMatch
from gqn_model.config import POSE_NUMBERS, Config, ModelConfig
from gqn_model.model.contract import Network, meta_network, network_class

if TYPE_CHECKING:
    from gqn_data.cache.policy import Remote
    from gqn_data.sampling.views import ContextPer
    from gqn_data.schema.catalog import Split
    from gqn_data.schema.jpeg import Fit


# Settings of a network that needs the geometry of a dataset.
_GEOMETRY = ("field_of_view", "yaw_sign", "near", "far")

_FEWEST_TO_HOLD_OUT = 20  # training scenes

# An independent random stream under the seed, as in `gqn_data.sampling`.
_HELD_OUT_STREAM = 4001

# Frames of a batch; its loader holds several batches. The paper's takes 2.6 MB.
_MOST_BATCH_BYTES = 4 << 30


class Batches(Protocol):
    """Stream of batches with a position; `gqn_data.loader.SceneLoader` is one."""

    @property
    def fingerprint(self) -> str:
        """Identity of the dataset."""

    @property
    def scene_set(self) -> str:
        """Name of the scene set."""

    @property
    def pose_fields(self) -> tuple[str, ...]:
        """Names of the numbers of a pose."""

    @property
    def waited(self) -> float:
        """Seconds spent waiting for batches so far."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from the current position."""

    def state_dict(self) -> dict[str, int | str]:
        """Return the position after the last batch, for `load_state_dict`."""

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Move to a position."""

    def close(self) -> None:
        """Stop the workers."""


class FiniteLoader(SceneLoader):
    """Loader that refuses poses of NaN or infinity, whose loss would look like a wrong learning rate."""

    def __iter__(self) -> Iterator[Batch]:
        """Iterate from the current position.

        Raises:
            CorruptFrame: a pose is not finite.
        """
        return self._finite(super().__iter__())

    def _finite(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            finite = torch.isfinite(batch.poses).all(2)
            if not finite.all():
                row, slot = (~finite).nonzero()[0].tolist()
                folder = self.datasets[int(batch.datasets[row])].folder
                raise CorruptFrame(
                    f"{folder}: scene {batch.scenes[row]}, view {batch.views[row, slot]}: its camera holds NaN or "
                    f"infinity, expected finite numbers. List such scenes: gqn-data verify --deep {folder}"
                )
            yield batch
            del batch  # not held while waiting for the next one


def training_batches(
    shards: str | DatasetPath, config: Config, *, rank: int = 0, ranks: int = 1
) -> tuple[SceneLoader, Config]:
    """Return the endless stream of training batches, and the configuration with the values of the dataset filled in.

    Args:
        shards: a dataset, or an indexed folder of TFRecords, as a path or URL; or a `render:` address.
        config: frame size and `context_max` may be 0.
        rank: rank whose share of each batch is returned.
        ranks: number of ranks.

    Raises:
        RunMismatch: the network does not support the dataset's frame size or poses, or needs a geometry that the
            dataset does not state.
        OptionError: the network or a batch is too large.
    """
    shards = parse_dataset_path(shards)  # messages leave out its secrets
    training = config.training
    context = (training.context_min, training.context_max) if training.context_max else None

    scenes = _training_scenes(shards, config)

    def opened(context: tuple[int, int] | None) -> SceneLoader:
        return FiniteLoader(
            shards,
            scenes=scenes,
            batch_size=training.batch_size,
            context=context,
            context_per=cast("ContextPer", training.context_per),
            targets=training.targets,
            seed=training.seed,
            workers=training.workers,
            frame_size=config.model.frame_size or None,
            fit=_fit_of(config),
            pin_memory=training.device != "cpu" and torch.cuda.is_available(),
            window=training.window or None,
            remote=cast("Remote", training.remote),
            cache=training.cache or None,
            cache_gb=training.cache_gb or None,
            rank=rank,
            ranks=ranks,
        )

    loader = opened(context)
    if context is None and training.context_min != loader.context[0]:
        most = loader.context[1]
        loader.close()
        if training.context_min > most:
            raise RunMismatch(f"{shards}: context_min is {training.context_min}, expected 1 to {most} for this set")
        loader = opened((training.context_min, most))
    if loader.frame_size % 4:
        raise RunMismatch(
            f"{shards}: frames of {loader.frame_size} pixels, expected a multiple of 4; pass --frame-size"
        )
    model = config.model
    if network_class(model.model).needs_geometry:
        model = _with_geometry(model, loader, shards)
    pose = _pose_numbers(loader, shards, config)
    model = replace(model, frame_size=loader.frame_size, pose_numbers=pose)
    resolved = replace(
        config,
        model=model,
        training=replace(training, context_min=loader.context[0], context_max=loader.context[1]),
    )
    try:
        _check_size(resolved, ranks)
    except OptionError:
        loader.close()
        raise
    return loader, resolved


def held_out_scenes(shards: DatasetPath, config: Config) -> NDArray[np.int64]:
    """Return the training scenes that a run keeps out of training, in rising order.

    Which ones depends on the seed and the dataset only. At most a tenth of the scenes are kept out. None are without
    `held_out`, of fewer than 20, or if the others would be fewer than a batch: the best checkpoint is then chosen on
    test scenes. Of endless scenes they are the last numbers, which no training reaches.
    """
    dataset, training = open_dataset(shards, "train"), config.training
    if dataset.is_endless:
        return np.arange(ENDLESS - training.held_out, ENDLESS)
    count = min(training.held_out, len(dataset) // 10)
    if len(dataset) < _FEWEST_TO_HOLD_OUT or len(dataset) - count < training.batch_size:
        count = 0
    identity = int.from_bytes(hashlib.sha256(dataset.fingerprint.encode()).digest()[:8], "little")
    # Not a generator of numpy, whose numbers may change with its version.
    seed = key(training.seed, identity, _HELD_OUT_STREAM)
    return np.sort(permute(np.arange(count), len(dataset), seed=seed, epoch=0))


def _training_scenes(shards: DatasetPath, config: Config) -> NDArray[np.int64] | None:
    """Return the numbers of the scenes to train on; None for all, or if they are endless."""
    dataset, kept_out = open_dataset(shards, "train"), held_out_scenes(shards, config)
    if dataset.is_endless or not len(kept_out):
        return None
    return np.delete(np.arange(len(dataset)), kept_out)


def bounded(shards: DatasetPath, scenes: int) -> DatasetPath:
    """Return the dataset; of endless rendered scenes, the first `scenes` of each split."""
    return shards.bounded(scenes) if isinstance(shards, RenderAddress) else shards


def _fit_of(config: Config) -> Fit | None:
    """Return the loader's option `fit`."""
    return None if config.training.fit == "refuse" else cast("Fit", config.training.fit)


def _check_size(config: Config, ranks: int) -> None:
    """Raise OptionError if the network or a rank's share of a batch is too large, before either is allocated."""
    meta_network(config.model)
    training = config.training
    views = training.targets + training.context_max
    size = training.batch_size // ranks * views * config.model.frame_size**2 * 3
    if size > _MOST_BATCH_BYTES:
        raise OptionError(
            f"a batch of {training.batch_size} scenes with {views} views takes {human_bytes(size)}, expected at most "
            f"{human_bytes(_MOST_BATCH_BYTES)}; lower --batch-size, --context-max, --targets or --frame-size"
        )


def one_pass(shards: DatasetPath, config: Config, *, split: Split, batch_size: int, **options: Any) -> SceneLoader:
    """Return one pass over scenes in order, with frames as the network of a run sees them.

    Args:
        shards: a dataset, or an indexed folder of TFRecords.
        config: configuration with the frame size set.
        split: train or test.
        batch_size: scenes per batch; the last may have fewer.
        options: other options of `SceneLoader`.
    """
    return FiniteLoader(
        shards,
        split=split,
        batch_size=batch_size,
        shuffle=False,
        epochs=1,
        frame_size=config.model.frame_size,
        fit=_fit_of(config),
        tail="exact",
        remote="range",  # each scene once and few of its views: caching whole shards would not pay
        cache=config.training.cache or None,
        cache_gb=config.training.cache_gb or None,
        **options,
    )


def fixed_batches(
    shards: str | DatasetPath,
    config: Config,
    *,
    split: Split,
    context: int,
    batch_size: int,
    seed: int,
    scenes: NDArray[np.int64] | None = None,
) -> SceneLoader:
    """Return one pass over a split in its order, with one query and `context` views per scene, fixed by the seed.

    Args:
        shards: a dataset, or an indexed folder of TFRecords.
        config: configuration with the frame size set.
        split: train or test.
        context: context views of every sample.
        batch_size: scenes per batch; the last may have fewer.
        seed: of the choice of query and context.
        scenes: numbers of the scenes; None for all.

    Raises:
        RunMismatch: the network does not support the dataset's poses.
    """
    shards = parse_dataset_path(shards)  # messages leave out its secrets
    loader = one_pass(
        shards, config, split=split, scenes=scenes, batch_size=batch_size, context=(context, context), seed=seed
    )
    if len(loader.pose_fields) != config.model.pose:
        raise _pose_mismatch(loader, shards, config)
    return loader


def check_same_frames(configs: Mapping[Path, Config], shards: DatasetPath) -> None:
    """Raise unless runs see the same frames of a dataset, so that their predictions can be compared.

    Args:
        configs: configurations by run.
        shards: the dataset.

    Raises:
        RunMismatch: frame sizes differ, or how frames that are not square become square.
    """
    layout = open_dataset(shards).layout
    square = layout.height == layout.width
    seen = {
        run: f"frames of {config.model.frame_size} pixels{'' if square else f', fit {config.training.fit}'}"
        for run, config in configs.items()
    }
    first, expected = next(iter(seen.items()))
    for run, found in seen.items():
        if found != expected:
            raise RunMismatch(f"{run}: {found}, expected {expected} as in {first}; name such runs in separate commands")


def check_order(batches: SceneLoader, shards: str | DatasetPath, order: str) -> None:
    """Raise unless the dataset's poses have the run's numbers in the run's order; close the batches then.

    Args:
        batches: of the dataset.
        shards: the dataset.
        order: `pose_order` of the run.

    Raises:
        RunMismatch: the numbers or their order differ.
    """
    found = pose_order(batches.pose_fields)
    if found != order:
        batches.close()
        raise RunMismatch(
            f"{shards}: poses are {found}, expected {order}; pass --shards with a dataset of such cameras"
        )


def _with_geometry(model: ModelConfig, loader: SceneLoader, shards: str | DatasetPath) -> ModelConfig:
    """Return the configuration with open settings of the geometry from the dataset; close the loader on errors.

    Raises:
        RunMismatch: the cameras are not DeepMind's, or neither settings nor dataset state the geometry.
    """
    if loader.pose_fields != POSE_FIELDS:
        loader.close()
        raise RunMismatch(
            f"{shards}: poses of the numbers {', '.join(loader.pose_fields)}, expected {', '.join(POSE_FIELDS)}: "
            f"{model.model} needs cameras of known geometry; pass --model gqn, or write DeepMind's cameras"
        )
    given = {name: value for name in _GEOMETRY if (value := getattr(model, name))}
    stated = _stated_geometry(shards)
    try:
        if stated is None and len(given) < len(_GEOMETRY):
            flags = ", ".join("--" + name.replace("_", "-") for name in _GEOMETRY if name not in given)
            raise RunMismatch(
                f"{shards}: states no lens, sign of yaw and depth range, expected them for {model.model}; write it "
                f"with SceneWriter(..., field_of_view=, yaw_sign=, depth_range=), or pass {flags}"
            )
        settings = (stated or {}) | given
        if "field_of_view" not in settings:
            layout = loader.dataset.layout
            raise RunMismatch(
                f"{shards}: frames of {layout.width}x{layout.height}, whose lens has two angles; pass --field-of-view "
                "with the angle between the edges of the square frames after --fit"
            )
        return _replaced(model, settings, shards)
    except RunMismatch:
        loader.close()
        raise


def _stated_geometry(shards: str | DatasetPath) -> dict[str, Any] | None:
    """Return the settings of a network for the geometry that a dataset states; None if it states none.

    Without `field_of_view` if frames are not square: between their edges are two angles.
    """
    dataset = open_dataset(shards)
    geometry, layout = dataset.manifest.geometry, dataset.layout
    if geometry is None:
        return None
    near, far = geometry.depth_range
    settings = {"field_of_view": geometry.field_of_view, "yaw_sign": geometry.yaw_sign, "near": near, "far": far}
    if layout.height != layout.width:
        del settings["field_of_view"]
    return settings


def _replaced(model: ModelConfig, geometry: Mapping[str, Any], shards: str | DatasetPath) -> ModelConfig:
    """Return the configuration for the geometry of a dataset.

    Raises:
        RunMismatch: the network cannot have it.
    """
    try:
        return replace(model, **geometry)
    except OptionError as error:
        raise RunMismatch(
            f"{shards}: a geometry that {model.model} cannot use ({error}); train with --field-of-view, --near and "
            "--far, or state another with SceneWriter(field_of_view=, yaw_sign=, depth_range=)"
        ) from error


def with_geometry_of(model: Network, shards: str | DatasetPath, match: DatasetMatch) -> tuple[Network, str]:
    """Return a network for the geometry of a dataset, and a note on it; unchanged on the dataset of the training.

    Args:
        model: a network in evaluation mode.
        shards: the dataset asked about.
        match: it, next to the dataset of the training.

    Raises:
        RunMismatch: the network cannot use the geometry.
    """
    # Without a train split a dataset cannot be compared: another renderer may have drawn it with another lens.
    if not model.needs_geometry or not (match.other or match.fingerprint is None):
        return model, ""
    stated = _stated_geometry(shards)
    if stated is None:
        return model, f"{shards} states no lens and depth range: those of the training are used"
    config = _replaced(model.config, stated, shards)
    if config == model.config:
        return model, ""
    device = next(model.parameters()).device
    note = f"lens and depths of {shards}: {_describe(config)}; trained with {_describe(model.config)}"
    return type(model).with_weights(config, model.state_dict()).to(device), note


def note_on_geometry(model: ModelConfig, shards: str | DatasetPath) -> str:
    """Return a note if settings of a network differ from the geometry that a dataset states; empty otherwise."""
    stated = _stated_geometry(shards) if network_class(model.model).needs_geometry else None
    other = {name: value for name, value in (stated or {}).items() if getattr(model, name) != value}
    if not other:
        return ""
    found = ", ".join(f"{name} {getattr(model, name):g}" for name in other)
    wanted = ", ".join(f"{name} {value:g}" for name, value in other.items())
    return f"warning: the settings have {found}, and {shards} states {wanted}"


def _describe(model: ModelConfig) -> str:
    """Return the geometry of a network in words."""
    return f"{model.field_of_view:g} degrees, {model.near:g} to {model.far:g}, yaw sign {model.yaw_sign}"


def _pose_numbers(loader: SceneLoader, shards: str | DatasetPath, config: Config) -> int:
    """Return `pose_numbers` for the dataset; 0 for DeepMind's cameras, as in runs of the first version."""
    found, given = len(loader.pose_fields), config.model.pose_numbers
    if given not in (0, found):
        raise _pose_mismatch(loader, shards, config)
    return given if found == POSE_NUMBERS else found


def _pose_mismatch(loader: SceneLoader, shards: str | DatasetPath, config: Config) -> RunMismatch:
    loader.close()
    fields = ", ".join(loader.pose_fields)
    return RunMismatch(f"{shards}: poses of {len(loader.pose_fields)} numbers ({fields}), expected {config.model.pose}")
