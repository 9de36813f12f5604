"""The model card: `README.md` of a published run, with the front matter that the Hugging Face hub reads.

Every sentence follows from the run, its checkpoint, its results and the manifest of its dataset.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gqn_data.io.hub import Repository, parse_repository
from gqn_data.publish.card import plain
from gqn_data.publish.provenance import citation, provenance
from gqn_data.schema.manifest import Manifest
from gqn_model.checkpoint.checkpoint import Checkpoint
from gqn_model.checkpoint.run_folder import RunFacts
from gqn_model.config import PRESETS, Config, declarations, resolve
from gqn_model.publish.results import Result

# Papers report metrics over at least this number of scenes, for example Tobin et al. 2019.
_USUAL_SCENES = 1000

_ABOUT = {
    "gqn": "A Generative Query Network: it encodes the context views of a scene, and draws frames at other cameras "
    "from a prior over latents. Each sample is one guess about what the context does not show.",
    "plane_sweep": "A plane-sweep network: it warps the context views to the query camera at a set of depths, and "
    "predicts the mean of the frame. It draws no samples, and blurs what the context does not show.",
}
_ABOUT_NOISE = (
    "A plane-sweep network with noise: it warps the context views to the query camera at a set of depths, and draws "
    "frames. Each sample is one guess about what the context does not show."
)
_PRIVATE = ("cache", "visdom_server", "visdom_port", "visdom_env")  # of the machine that trained


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        repository: repository of the model; None for weights in the package.
        checkpoint: the published checkpoint.
        run: facts of the run; `shards` is empty unless others can use the address.
        manifest: manifest of the dataset of the training; None if it cannot be opened.
        results: results about the checkpoint.
        precision: type of the parameters in the file.
    """

    repository: Repository | None
    checkpoint: Checkpoint
    run: RunFacts
    manifest: Manifest | None
    results: Sequence[Result]
    precision: str = "float32"

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(tensor.numel() for tensor in self.checkpoint.model.values())


def model_card(facts: CardFacts) -> str:
    """Return the card of a run, as Markdown."""
    config, step = facts.checkpoint.config, facts.checkpoint.step
    model, training = config.model, config.training
    size = model.frame_size
    parts = (
        _front_matter(facts),
        f"# {plain(facts.checkpoint.scene_set)}, {model.model}, {step:,} steps\n",
        (_ABOUT_NOISE if model.model == "plane_sweep" and model.noise else _ABOUT[model.model]) + "\n",
        f"- Input: {training.context_min} to {training.context_max} context views in training, each a frame of "
        f"{size}x{size} pixels with its camera, and a query camera.\n"
        f"- Output: the frame at the query camera, {size}x{size} pixels.\n"
        f"- {facts.parameters:,} parameters, {facts.precision}.\n",
        _usage(facts),
        _evaluation(facts),
        _data(facts),
        _training(facts),
        _limits(facts),
        "" if facts.manifest is None else f"## Citation\n\n```bibtex\n{citation(facts.manifest)}```\n",
    )
    return "\n".join(part for part in parts if part)


def train_command(config: Config, shards: str) -> str:
    """Return a `gqn train` command that gives this configuration.

    Args:
        config: the configuration of a run.
        shards: the dataset.
    """
    of_model = {name: changes for name, changes in PRESETS.items() if changes.get("model", "gqn") == config.model.model}
    candidates = [(name, _changes(config, name)) for name in of_model]
    preset, changes = min(candidates, key=lambda one: len(one[1]))
    words = ["gqn", "train", "--shards", shards, "--preset", preset]
    for name, value in changes.items():
        flag = name.replace("_", "-")
        words += (
            ([f"--{flag}"] if value else [f"--no-{flag}"]) if isinstance(value, bool) else [f"--{flag}", str(value)]
        )
    return shlex.join(words)


def _changes(config: Config, preset: str) -> dict[str, object]:
    """Return the settings, by name, that differ from a preset with the same number of steps."""
    base = {"steps": config.training.steps}
    known = resolve(preset, (), base)
    found: dict[str, object] = {}
    for one in declarations():
        value = getattr(getattr(config, one.part), one.name)
        if one.name in _PRIVATE or one.owner not in (None, config.model.model):
            continue
        if value != getattr(getattr(known, one.part), one.name):
            found[one.name] = value
    if config.training.steps != resolve(preset).training.steps:
        found |= base
    return found


def _front_matter(facts: CardFacts) -> str:
    tags = ("gqn", "novel-view-synthesis", facts.checkpoint.config.model.model, facts.checkpoint.scene_set)
    lines = ["---", "library_name: gqn-toolkit", "tags:", *(f"- {json.dumps(tag)}" for tag in dict.fromkeys(tags))]
    if facts.run.shards.startswith("hf://datasets/"):
        dataset, _ = parse_repository(facts.run.shards.removeprefix("hf://"))
        lines += ["datasets:", f"- {json.dumps(dataset.name)}"]
    return "\n".join([*lines, "---", ""])


def _usage(facts: CardFacts) -> str:
    if facts.repository is None:
        name = facts.checkpoint.scene_set
        where, shards, load = f"--pretrained {name}", "", f'load_pretrained("{name}")'
    else:
        where, shards = str(facts.repository), "" if facts.run.shards else " --shards PATH"
        load = f'load_model("{facts.repository}")'
    return "\n".join(
        [
            "## Using it",
            "",
            "With gqn-toolkit:",
            "",
            "```sh",
            f"gqn sample {where}{shards} -o picture.png",
            f"gqn evaluate {where}{shards}",
            "```",
            "",
            "```python",
            f"from gqn_model import {load.partition('(')[0]}",
            "",
            f"model = {load}    # on the CPU, in evaluation mode",
            "```",
            "",
        ]
    )


def _evaluation(facts: CardFacts) -> str:
    lines = ["## Evaluation", ""]
    if not facts.results:
        return "\n".join([*lines, "This checkpoint was not evaluated before it was published.", ""])
    for result in facts.results:
        samples = f", {result.samples} prior samples per scene" if result.samples else ""
        other = ", **another dataset than in training**" if result.other else ""
        lines += [
            f"{result.scenes:,} {plain(result.split)} scenes of {plain(result.scene_set)}{other}{samples}; questions "
            f"`{plain(result.questions)}`. Mean over scenes, with its standard error; MAE and RMSE on 0 to 255.",
            "",
            "| context views | prediction | PSNR (dB) | SSIM | MAE | RMSE |",
            "|--:|---|--:|--:|--:|--:|",
        ]
        for row in result.rows:
            cells = (_shown(metric, digits) for metric, digits in zip(row.metrics, (2, 4, 2, 2), strict=True))
            lines.append(f"| {row.context} | {plain(row.name)} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(
        [*lines, "`nearest view` and `mean image` are baselines without a network. `best of N` uses the truth.", ""]
    )


def _shown(metric: tuple[float | None, float | None], digits: int) -> str:
    mean, error = metric
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _data(facts: CardFacts) -> str:
    manifest = facts.manifest
    lines = [
        "## Data",
        "",
        f"- Scene set: {plain(facts.checkpoint.scene_set)}"
        + (f". {plain(provenance(manifest).headline)}" if manifest is not None else ""),
        f"- Fingerprint of the training scenes: `{plain(facts.checkpoint.fingerprint)}`",
    ]
    if manifest is not None:
        counts = ", ".join(f"{split.scenes:,} of {name}" for name, split in manifest.splits.items())
        lines.append(f"- Scenes: {counts}")
        lines.append(f"- Licence of the data: {plain(provenance(manifest).licence)}")
    where = f"`{facts.run.shards}`" if facts.run.shards else "not published with this model"
    return "\n".join([*lines, f"- Where: {where}", ""])


def _training(facts: CardFacts) -> str:
    config = facts.checkpoint.config
    versions = ", ".join(f"{plain(name)} {plain(value)}" for name, value in facts.run.versions.items())
    commit = f", commit {plain(facts.run.commit)}" if facts.run.commit else ""
    return "\n".join(
        [
            "## Training",
            "",
            f"Seed {config.training.seed}, {facts.checkpoint.step:,} of {config.training.steps:,} steps; "
            f"{versions}{commit}. All settings: `config.json`. The command:",
            "",
            "```sh",
            train_command(config, facts.run.shards or "PATH"),
            "```",
            "",
        ]
    )


def _limits(facts: CardFacts) -> str:
    return "\n".join(["## Limits", "", *(f"- {limit}" for limit in _all_limits(facts)), ""])


def _all_limits(facts: CardFacts) -> Iterator[str]:
    checkpoint = facts.checkpoint
    yield (
        f"It was trained on scenes of {plain(checkpoint.scene_set)} and their cameras. How well it predicts other "
        "scenes, photos included, was not measured beyond the tables above."
    )
    yield "One training with one seed: how much its figures vary between seeds was not measured."
    if facts.manifest is not None and facts.manifest.origin.kind == "rendered":
        yield "Trained on rendered scenes. They resemble DeepMind's, on which it was not trained."
    if checkpoint.step < checkpoint.config.training.steps:
        yield f"The training was planned for {checkpoint.config.training.steps:,} steps; this is an earlier state."
    if not facts.results:
        yield "It was not evaluated."
    for result in facts.results:
        if result.scenes < _USUAL_SCENES:
            yield f"Evaluated on {result.scenes:,} scenes only; papers usually report {_USUAL_SCENES:,} or more."
        if result.chosen_on_test and result.split == "test":
            yield "The checkpoint was chosen on test scenes, so that its figures are optimistic."
        if result.split == "train":
            yield "Figures of training scenes do not say how well it predicts unseen scenes."
    yield "The weights hold no optimiser state, so that the training cannot be resumed from them."
