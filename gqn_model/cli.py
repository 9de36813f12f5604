"""The command `gqn`: train, runs, evaluate, sample, export, plot. A command parses, calls one function and prints.

Heavy imports happen inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gqn_data.cli_options import (
    INTERRUPTED,
    SETTINGS,
    Commands,
    DatasetPathType,
    LocalPathType,
    OutputType,
    host_option,
    json_option,
    log,
    port_option,
    print_result,
    shown,
)
from gqn_data.errors import OptionError, SourceMissing, TrainingStopped, UnknownName
from gqn_data.io.paths import DatasetPath, RenderAddress, parse_dataset_path
from gqn_data.schema.catalog import SPLITS
from gqn_data.version import VERSION
from gqn_model.config import (
    GROUPS,
    MODEL_NAMES,
    MODS,
    MOST_FRAMES,
    MOST_SAMPLES,
    MOST_SCENES,
    MOST_SEED,
    MOST_WORKERS,
    PRESETS,
    Declaration,
    declarations,
    default_preset,
    mods_of,
    resolve,
)
from gqn_model.config_file import read_config_file

F = TypeVar("F", bound=Callable[..., Any])

# click before 8.4 cannot subscript ParamType at run time.
if TYPE_CHECKING:
    _StepBase = click.ParamType[int | str]
    _SweepBase = click.ParamType[tuple[int, ...]]
else:
    _StepBase = _SweepBase = click.ParamType


class StepType(_StepBase):
    """The step of a checkpoint, or `best`."""

    name = "step"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the step, or raise a usage error."""
        if value == "best":
            return "best"
        return click.IntRange(0).convert(value, param, ctx)


class SweepType(_SweepBase):
    """Comma-separated numbers from 1."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers, or raise a usage error."""
        number: Any = click.IntRange(1)
        return tuple(number.convert(part.strip(), param, ctx) for part in str(value).split(","))


class SettingOption(click.Option):
    """An option made from a setting's declaration; `TrainCommand` lists it under its group."""

    def __init__(self, names: Sequence[str], *, group: str, **options: Any) -> None:
        super().__init__(names, **options)
        self.group = group


class TrainCommand(click.Command):
    """A command whose help lists settings by group, after its other options.

    A group that only one model has is named like it.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then a section for each group of settings."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("options", *GROUPS)}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx)
            if row is not None:
                sections[getattr(param, "group", "options")].append(row)
        for name, rows in sections.items():
            with formatter.section(f"{name[0].upper()}{name[1:]}"):
                formatter.write_dl(rows)


def setting_options(command: F) -> F:
    """Add an option for every setting: `--batch-size 16`, `--shared-cores/--no-shared-cores`.

    An omitted option arrives as None, so that presets and mods decide.
    """
    for one in reversed(list(declarations())):
        command = _setting_option(one)(command)
    return command


def _setting_option(one: Declaration) -> Callable[[F], F]:
    flag = "--" + one.name.replace("_", "-")
    default = _shown(one.default)
    options: dict[str, Any] = {"group": one.group, "default": None}
    about = f"{one.about[0].upper()}{one.about[1:]}"
    if one.several and one.choices:
        about += f"; possible: {', '.join(one.choices)}"
    options["help"] = f"{about}.  [default: {default}]"
    if one.kind is bool:
        # A pair of flags: without a value to parse, `--flag False` cannot be read as true.
        return click.option(f"{flag}/--no-{flag[2:]}", one.name, cls=SettingOption, **options)
    if one.choices and one.several:
        # The configuration checks the names and lists the possible ones.
        return click.option(flag, one.name, cls=SettingOption, metavar="NAME,...", **options)
    kind: Any = click.Choice(one.choices) if one.choices else one.kind
    return click.option(flag, one.name, cls=SettingOption, type=kind, **options)


def _shown(value: Any) -> str:
    """Return a default as the help shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) or "empty"


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were passed, by field name."""
    return {name: value for name, value in options.items() if value is not None}


@click.group("gqn", cls=Commands, context_settings=SETTINGS)
@click.version_option(VERSION, prog_name="gqn")
def main() -> None:
    """Train a network on a scene set, evaluate it, and draw its predictions."""


def _local_runs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the folders of runs; of `hf://USER/NAME` the folder of a copy."""
    from gqn_model.checkpoint.pull import local_run, parse_run

    try:
        parsed = [parse_run(run) for run in value]
    except (OptionError, SourceMissing) as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return tuple(map(local_run, parsed))


def _local_pretrained(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the folders of copies of pretrained weights."""
    from gqn_model.checkpoint.pretrained import pretrained_folder
    from gqn_model.checkpoint.pull import local_pretrained

    try:
        for name in value:
            pretrained_folder(name)
    except UnknownName as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return tuple(map(local_pretrained, value))


def _one_or_more(runs: tuple[Path, ...], pretrained: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the runs that a command is about."""
    if not (runs or pretrained):
        raise click.UsageError("RUN is missing, expected the folder of a run, hf://USER/NAME or --pretrained NAME")
    return (*runs, *pretrained)


_shards = click.option(
    "--shards",
    metavar="PATH",
    type=DatasetPathType(),
    help="Dataset or indexed folder of TFRecords, path or URL; or render:SET for fresh scenes.  [required]",
)
_old_shards = click.option(
    "--shards", metavar="PATH", type=DatasetPathType(), help="Dataset.  [default: the one in training]"
)
_run = click.argument("run", metavar="RUN", type=LocalPathType("runs lie"))
_runs = click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=LocalPathType("runs lie"))
_any_runs = click.argument("runs", metavar="[RUN|hf://USER/NAME]...", nargs=-1, callback=_local_runs)
_pretrained = click.option(
    "--pretrained",
    metavar="NAME",
    multiple=True,
    callback=_local_pretrained,
    help="Also the weights of this package for a scene set, such as rooms_ring_camera; repeatable.",
)
_step = click.option("--step", type=StepType(), metavar="STEP|best", help="Checkpoint to use.  [default: newest]")
_context = click.option(
    "--context", type=click.IntRange(1), help="Context views per scene.  [default: the most in training]"
)
_other_set = click.option("--other-set", is_flag=True, help="Allow another scene set than in training.")
_device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...")


_DEFAULT_PRESETS = ", ".join(
    default_preset(model) + (f" with --model {model}" if model != MODEL_NAMES[0] else "") for model in MODEL_NAMES
)
_MODS_BY_MODEL = "; ".join(
    f"{'every model' if model is None else model}: {', '.join(mods)}"
    for model in (*MODEL_NAMES, None)
    if (mods := mods_of(model))
)


def _check_dataset(run: Path | None, shards: DatasetPath | None) -> DatasetPath:
    """Return the dataset, given or the run's, after opening it; torch is not imported."""
    from gqn_data.dataset import open_dataset
    from gqn_model.checkpoint.run_folder import trained_shards

    if shards is not None:
        open_dataset(shards)
        return shards
    assert run is not None  # noqa: S101  one of them is given
    shards = trained_shards(run)
    try:
        open_dataset(shards)
    except SourceMissing as error:
        raise SourceMissing(f"{error}. {run} was trained on it; pass its new place with --shards") from None
    return shards


def _is_finished(run: Path, shards: DatasetPath | None, step: Any, options: Mapping[str, Any]) -> bool:
    """Return whether a run has all its steps, and log it; False for other options, which `resume_run` checks."""
    from gqn_model.checkpoint.files import checkpoint_steps
    from gqn_model.checkpoint.run_folder import describe_finished, read_config

    if shards is not None or step is not None or set(options) - {"steps"} or "WORLD_SIZE" in os.environ:
        return False
    steps = options.get("steps", read_config(run).training.steps)
    newest = (checkpoint_steps(run) or [-1])[-1]
    if newest < steps:
        return False
    log(describe_finished(run, newest))
    return True


@main.command(cls=TrainCommand, short_help="Train a network, or resume a run.")
@_shards
@click.option("--scenes", type=click.IntRange(1), help="With render:SET: training scenes.  [default: endless]")
@click.option("--out", type=LocalPathType("runs are written"), help="Run folder.  [default: runs/SET-PRESET-N]")
@click.option("--resume", metavar="RUN", type=LocalPathType("runs lie"), help="Run to resume.")
@click.option(
    "--step",
    type=StepType(),
    metavar="STEP|best",
    help="With --resume: checkpoint to resume from; removes later ones.  [default: newest]",
)
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=LocalPathType("settings lie"),
    help="File of settings: .toml, or the config.json of a run. Other options override it.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help=f"Base settings, which imply the model.  [default: {_DEFAULT_PRESETS}]",
)
@click.option(
    "--mod",
    "mods",
    type=click.Choice(list(MODS)),
    metavar="NAME",
    multiple=True,
    help=f"Named change of settings; repeatable. {_MODS_BY_MODEL}.",
)
@click.option("-v", "--visdom", is_flag=True, help="Add the logger visdom: live curves and pictures.")
@click.option("--viewer", is_flag=True, help="Add the logger viewer: `gqn explore` on the run while it trains.")
@setting_options
def train(
    shards: DatasetPath | None,
    scenes: int | None,
    out: Path | None,
    resume: Path | None,
    step: Any,
    file: Path | None,
    preset: str | None,
    mods: tuple[str, ...],
    visdom: bool,
    viewer: bool,
    **options: Any,
) -> None:
    """Train a network, or resume a run, and print the run's folder.

    Settings come from the preset, then --config, then --mod, then single options; defaults below are those of the
    preset paper.
    Ctrl-C, SIGTERM and a closed terminal save a checkpoint and stop; --resume continues exactly there.
    """
    if resume is not None and (out is not None or file is not None or preset is not None or mods):
        raise click.UsageError("--resume takes its settings from the run; omit --out, --config, --preset and --mod")
    if resume is None and shards is None:
        raise click.UsageError("--shards is missing, expected a dataset to train on, or --resume RUN")
    if scenes is not None:
        if not isinstance(shards, RenderAddress):
            raise click.UsageError("--scenes needs --shards render:SET; a dataset has a number of scenes already")
        shards = parse_dataset_path(f"{shards},scenes={scenes}")
    if resume is None and step is not None:
        raise click.UsageError("--step needs --resume RUN")
    for name, wanted in (("visdom", visdom), ("viewer", viewer)):
        if wanted:
            options["logger"] = f"{options['logger'] or 'auto'},{name}"
    changes = given(options)
    if file is not None:
        read = read_config_file(file)
        changes = read.settings | {name: value for mod in mods for name, value in MODS[mod].items()} | changes
        preset, mods = preset or read.preset, (*read.mods, *mods)
    label = preset or (file and file.stem) or default_preset(options["model"])
    try:
        config = resolve(preset, mods, {} if resume else changes)
    except OptionError as error:
        if file is None:
            raise
        raise OptionError(f"{error} (with the settings of {file})") from error
    # What is wrong without torch is reported before it is imported, which takes seconds.
    if resume is not None and _is_finished(resume, shards, step, given(options)):
        click.echo(resume)
        return
    if os.environ.get("RANK", "0") == "0":  # other ranks need not see the run's folder
        _check_dataset(resume, shards)
    from gqn_model.train.distributed import current_ranks
    from gqn_model.train.run import resume_run, start_run

    try:
        if resume is not None:
            folder = resume_run(resume, given(options), shards, step)
        else:
            assert shards is not None  # noqa: S101  checked above
            folder = start_run(shards, config, out=out, label=label)
    except TrainingStopped as stopped:
        if current_ranks().first:
            log(str(stopped))
        sys.exit(INTERRUPTED)
    if current_ranks().first:
        click.echo(shown(folder, resume or out or Path("runs")))


@main.command("runs", short_help="List runs with their steps, figures and state.")
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=LocalPathType("runs lie"))
@json_option
def list_runs(folders: tuple[Path, ...], as_json: bool) -> None:
    """List runs: step, PSNR on training and on held-out scenes, the best checkpoint, and whether it is running.

    A FOLDER is a run or holds runs.  [default: runs]
    """
    from gqn_model.checkpoint.run_list import runs_table, summarize_runs

    found = summarize_runs(folders or [Path("runs")])
    print_result([one.to_json() for one in found], runs_table(found), as_json=as_json)


@main.command(short_help="Evaluate runs on unseen scenes.")
@_any_runs
@_pretrained
@_old_shards
@click.option(
    "--context",
    type=SweepType(),
    metavar="1,3,5",
    multiple=True,
    help="Numbers of context views; repeatable.  [default: the numbers usually reported for this set]",
)
@click.option("--scenes", type=click.IntRange(1), help="Most scenes.  [default: 1000]")
@click.option(
    "--samples", type=click.IntRange(1, MOST_SAMPLES), default=8, show_default=True, help="Prior samples per scene."
)
@click.option("--split", type=click.Choice(SPLITS), help="Split.  [default: test]")
@click.option(
    "--index",
    metavar="FILE",
    type=LocalPathType("indexes lie"),
    help="Questions of another evaluation.  [default: the run's, created if missing]",
)
@click.option(
    "--batch-size", type=click.IntRange(1, MOST_SCENES), default=32, show_default=True, help="Scenes per batch."
)
@click.option("--workers", type=click.IntRange(0, MOST_WORKERS), default=0, show_default=True, help="Loader processes.")
@click.option(
    "--plot", type=OutputType("plots are written"), help="Also plot the runs together: .png, .jpg, .pdf or .svg."
)
@_step
@_other_set
@_device
@json_option
def evaluate(
    runs: tuple[Path, ...],
    pretrained: tuple[Path, ...],
    shards: DatasetPath | None,
    context: tuple[tuple[int, ...], ...],
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate predictions of unseen scenes, next to two baselines.

    Each number of context views is evaluated on the same questions (scene, query view, nested context views). Several
    runs answer the same questions, in one table; --json prints a list. The questions, the result and a plot are written
    into each run's evaluation/ folder.
    """
    runs = _one_or_more(runs, pretrained)
    if options["index"] is None:  # one that cannot be read is reported first
        for run in runs:
            _check_dataset(run, shards)
    from gqn_model.evaluate.plot import check_comparison, write_comparison, write_plot
    from gqn_model.evaluate.report import comparison
    from gqn_model.evaluate.run_evaluation import evaluate_runs

    if plot is not None:
        check_comparison(plot)
    found = evaluate_runs(runs, shards, context=[number for numbers in context for number in numbers], **options)
    value = [one.to_json() for one in found]
    print_result(
        value if len(found) > 1 else value[0],
        [comparison(found) if len(found) > 1 else found[0].table()],
        as_json=as_json,
    )
    for one in found:
        result = Path(one.result)
        drawn = result.with_name(result.name.replace("result-", "plot-", 1)).with_suffix(".png")
        try:
            write_plot(one, drawn)
        except OptionError as error:  # without matplotlib the figures are complete, only the plot is missing
            log(f"no plot: {error}")
        else:
            log(f"{result}\n{drawn}")
    if plot is not None:
        write_comparison(found, plot)
        log(str(plot))


@main.command(short_help="Draw predictions, or a walk through a scene.")
@_any_runs
@_pretrained
@_old_shards
@click.option(
    "-o",
    "--output",
    type=OutputType("pictures are written"),
    required=True,
    help="Picture: .png, .jpg, .pdf or .svg; with --walk .gif or .mp4.",
)
@click.option(
    "--layout",
    type=click.Choice(["grid", "column"]),
    help="A grid with samples, or rows that fit a column of text.  [default: column for .pdf and .svg]",
)
@click.option("--scenes", type=click.IntRange(1, 32), help="Scenes.  [default: 8]")
@_context
@click.option("--samples", type=click.IntRange(0, 16), help="Prior samples.  [default: 2, with --walk 1]")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True, help="Split.")
@click.option(
    "--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True, help="Seed of views and noise."
)
@click.option("--walk", is_flag=True, help="Animate a camera path around one scene.")
@click.option("--scene", type=click.IntRange(0), help="Scene of the walk.  [default: 0]")
@click.option("--frames", type=click.IntRange(2, MOST_FRAMES), help="Frames of the walk.  [default: by its path]")
@click.option("--rate", type=click.FloatRange(1, 50), help="Frames per second of the walk.  [default: 15]")
@_step
@_other_set
@_device
def sample(
    runs: tuple[Path, ...],
    pretrained: tuple[Path, ...],
    shards: DatasetPath | None,
    output: Path,
    context: int | None,
    walk: bool,
    **options: Any,
) -> None:
    """Draw context views, the ground truth and the predictions of each run: of GQN from its prior.

    With --walk the camera moves along a path derived from the scene's cameras; context views and latent noise stay
    fixed.
    """
    runs = _one_or_more(runs, pretrained)
    other = ("scenes", "layout") if walk else ("scene", "frames", "rate")
    wrong = [f"--{name}" for name in other if options[name] is not None]
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)}: only for a picture {'without' if walk else 'with'} --walk")
    if not walk and output.suffix.lower() in (".gif", ".mp4"):
        raise click.UsageError(f"{output}: an animation needs --walk; a picture is .png or .jpg")
    if walk and len(runs) > 1:
        raise click.UsageError(f"--walk shows one run, found {len(runs)}")
    opened = [_check_dataset(run, shards) for run in runs]
    from gqn_model.visualize.sample import write_predictions, write_walk

    if walk:
        write_walk(runs[0], opened[0], output, context=context or 0, **given(options))
    else:
        write_predictions(runs, opened[0], output, context=context or 0, **given(options))
    click.echo(output)


@main.command(short_help="Open a run in the browser.")
@click.argument("run", metavar="[RUN]", required=False, type=LocalPathType("runs lie"))
@_pretrained
@_old_shards
@port_option
@host_option
@_step
@_other_set
@_device
def explore(run: Path | None, pretrained: tuple[Path, ...], shards: DatasetPath | None, **options: Any) -> None:
    """Open a run in the browser: predictions that follow the camera. Ctrl-C closes it.

    Scenes and context views are chosen in the page. A newer checkpoint of the run replaces the one in use.
    """
    run, *others = _one_or_more(() if run is None else (run,), pretrained)
    if others:
        raise click.UsageError(f"explore shows one run, found {1 + len(others)}")
    shards = _check_dataset(run, shards)
    from gqn_model.viewer.explore import explore as explore_run

    explore_run(run, shards, log=log, opened=click.echo, **options)
    log("viewer closed")


@main.command(short_help="Export the weights of a run as safetensors.")
@_run
@click.option("-o", "--output", type=OutputType("weights are written"), required=True, help="File: .safetensors.")
@_step
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="Type of the weights in the file; bf16 halves it and rounds them.",
)
def export(run: Path, output: Path, step: Any, precision: str) -> None:
    """Export the weights of a run as one safetensors file, without optimiser state.

    Python loads it with gqn_model.load_safetensors(PATH), in float32 with bit-identical predictions.
    """
    from gqn_model.checkpoint.safetensors import export_weights

    click.echo(export_weights(run, output, step, precision=precision))


@main.command(short_help="Publish the weights of a run on the Hugging Face hub.")
@_run
@click.argument("name", metavar="USER/NAME")
@_step
@click.option("--private", is_flag=True, help="Create a private repository.")
def push(run: Path, name: str, step: Any, private: bool) -> None:
    """Publish the weights of a run on the Hugging Face hub, with a model card, and print the address.

    The card has the tables of `gqn evaluate` about the checkpoint: evaluate first. Local paths are left out. Needs the
    extra hub, and HF_TOKEN or `hf auth login`.
    """
    from gqn_model.publish.push import push_run

    click.echo(push_run(run, name, step=step, private=private))


@main.command(short_help="Plot the learning curves of runs.")
@_runs
@click.option(
    "-o", "--output", type=OutputType("pictures are written"), required=True, help="Plot: .png, .jpg, .pdf or .svg."
)
def plot(runs: tuple[Path, ...], output: Path) -> None:
    """Plot the learning curves of one or several runs from their log.jsonl. Needs matplotlib."""
    from gqn_model.visualize.learning_curves import write_curves

    write_curves(runs, output)
    click.echo(output)
