"""The commands of `gqn`: train, evaluate, sample, export and others. A command parses, calls one function, prints.

Nothing heavy is imported before a command runs, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gqn_data.cli_options import INTERRUPTED, SETTINGS, Commands, json_option, log, print_result
from gqn_data.errors import OptionError, TrainingStopped
from gqn_data.schema.catalog import SPLITS
from gqn_data.version import VERSION
from gqn_model.config import MODS, PRESETS, resolve
from gqn_model.options import config_options, given


class StepType(click.ParamType[int | str]):
    """An option that takes the step of a checkpoint, or `best`."""

    name = "step"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The step; a usage error for what is none."""
        if value == "best":
            return "best"
        return click.IntRange(0).convert(value, param, ctx)


class SweepType(click.ParamType[tuple[int, ...]]):
    """An option that takes numbers from 1, with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers; a usage error for what are none."""
        numbers: click.ParamType[Any] = click.IntRange(1)
        return tuple(numbers.convert(part.strip(), param, ctx) for part in str(value).split(","))


@click.group("gqn", cls=Commands, context_settings=SETTINGS)
@click.version_option(VERSION, prog_name="gqn")
def main() -> None:
    """Train a generative query network on a scene set, measure it, and look at what it predicts."""


_shards = click.option(
    "--shards", metavar="PATH", help="A dataset, or an indexed folder of TFRecords; a path or a URL.  [required]"
)
_old_shards = click.option("--shards", metavar="PATH", help="The dataset.  [default: the one trained on]")
_run = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
_step = click.option("--step", type=StepType(), metavar="STEP|best", help="Of which checkpoint.  [default: the newest]")
_context = click.option(
    "--context", type=click.IntRange(1), help="Context views of each scene.  [default: the most that it trained with]"
)
_device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...")


@main.command()
@_shards
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/SET-PRESET-N]")
@click.option("--resume", metavar="RUN", type=click.Path(path_type=Path), help="Go on with a run.")
@click.option(
    "--step",
    type=StepType(),
    metavar="STEP|best",
    help="With --resume: from that checkpoint; later ones are removed.  [default: the newest]",
)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Where settings start from.  [default: paper]")
@click.option(
    "--mod", "mods", type=click.Choice(list(MODS)), multiple=True, help="Settings changed together; repeatable."
)
@click.option("-v", "--visdom", is_flag=True, help="Live curves and pictures in Visdom: the logger visdom as well.")
@config_options
def train(
    shards: str | None,
    out: Path | None,
    resume: Path | None,
    step: Any,
    preset: str | None,
    mods: tuple[str, ...],
    visdom: bool,
    **options: Any,
) -> None:
    """Train a network. Settings: the preset's, then those of --mod, then the options given.

    Ctrl-C and SIGTERM save and end; --resume goes on as if nothing had happened. The run's folder is printed.
    """
    from gqn_model.train.distributed import current_ranks
    from gqn_model.train.run import resume_run, start_run

    if resume is not None and (out is not None or preset is not None or mods):
        raise click.UsageError("--resume takes its settings from the run; leave out --out, --preset and --mod")
    if resume is None and shards is None:
        raise click.UsageError("--shards is missing: what to train on? (or --resume RUN to go on with a run)")
    if resume is None and step is not None:
        raise click.UsageError("--step says where to go on with a run: give --resume RUN")
    if visdom:
        options["logger"] = f"{options['logger'] or 'auto'},visdom"
    try:
        if resume is not None:
            folder = resume_run(resume, given(options), shards, step)
        else:
            preset = preset or "paper"
            folder = start_run(str(shards), resolve(preset, mods, given(options)), out=out, label=preset)
    except TrainingStopped as stopped:
        if current_ranks().first:
            log(str(stopped))
        sys.exit(INTERRUPTED)
    if current_ranks().first:
        click.echo(folder)


@main.command()
@_run
@_old_shards
@click.option(
    "--context",
    type=SweepType(),
    metavar="1,3,5",
    multiple=True,
    help="Numbers of context views, with commas; repeatable.  [default: those that the field tells figures for]",
)
@click.option("--scenes", type=click.IntRange(1), help="At most so many scenes.  [default: 1000]")
@click.option("--samples", type=click.IntRange(1), default=8, show_default=True, help="Prior samples of each scene.")
@click.option("--split", type=click.Choice(SPLITS), help="Which split.  [default: test]")
@click.option(
    "--index",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Ask what another evaluation asked.  [default: the run's own, made where it is absent]",
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Scenes at a time.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that read scenes.")
@_step
@_device
@json_option
def evaluate(
    run: Path, shards: str | None, context: tuple[tuple[int, ...], ...], as_json: bool, **options: Any
) -> None:
    """Measure what a run predicts of scenes that it has not seen, beside two baselines.

    All numbers of context views are asked the same questions (scene, query view, nested context views), which are
    written into the run's evaluation/ folder, with the result and a plot of it.
    """
    from gqn_model.evaluate.plot import write_plot
    from gqn_model.evaluate.run_evaluation import evaluate as evaluated

    found = evaluated(run, shards, context=[number for numbers in context for number in numbers], **options)
    print_result(found.to_json(), [found.table()], as_json=as_json)
    result = Path(found.result)
    plot = result.with_name(result.name.replace("result-", "plot-", 1)).with_suffix(".png")
    try:
        write_plot(found, plot)
    except OptionError as error:  # matplotlib is absent: the figures stand without a plot
        log(f"no plot: {error}")
    else:
        log(f"{result}\n{plot}")


@main.command()
@_run
@_old_shards
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The picture: .png or .jpg; of a walk .gif or .mp4.",
)
@click.option("--scenes", type=click.IntRange(1, 32), help="Scenes shown, a column each.  [default: 8]")
@_context
@click.option("--samples", type=click.IntRange(0, 16), help="Prior samples shown.  [default: 2, of a walk 1]")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True, help="Which split.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice of views and the noise."
)
@click.option("--walk", is_flag=True, help="A moving picture: a walk around one scene.")
@click.option("--scene", type=click.IntRange(0), help="The scene of the walk.  [default: 0]")
@click.option("--frames", type=click.IntRange(2, 2000), help="Frames of the walk.  [default: what suits its path]")
@click.option("--rate", type=click.FloatRange(1, 50), help="Frames of the walk a second.  [default: 15]")
@_step
@_device
def sample(run: Path, shards: str | None, output: Path, context: int | None, walk: bool, **options: Any) -> None:
    """Write a picture: context views, the ground truth, and below it what the network predicts from its prior.

    With --walk a moving one: the camera goes around a scene, by a path that follows from the scene's own cameras; the
    context views and the noise of the latents stay the same on the way.
    """
    from gqn_model.checkpoint.run_folder import read_facts
    from gqn_model.visualize.sample import write_predictions, write_walk

    other = ("scenes",) if walk else ("scene", "frames", "rate")
    wrong = [f"--{name}" for name in other if options[name] is not None]
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)} is for a picture {'without' if walk else 'with'} --walk")
    if not walk and output.suffix.lower() in (".gif", ".mp4"):
        raise click.UsageError(f"{output}: a picture that moves is one of a walk; add --walk, or write .png or .jpg")
    write: Any = write_walk if walk else write_predictions
    write(run, shards or read_facts(run).shards, output, context=context or 0, **given(options))
    click.echo(output)


@main.command()
@_run
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file: .safetensors.")
@_step
def export(run: Path, output: Path, step: Any) -> None:
    """Write the weights of a run, without the rest of its training, as one safetensors file.

    Python loads it with gqn_model.load_safetensors(PATH), with bit-identical predictions.
    """
    from gqn_model.checkpoint.safetensors import export_weights

    click.echo(export_weights(run, output, step))


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The picture: .png or .jpg.")
def plot(runs: tuple[Path, ...], output: Path) -> None:
    """Draw the curves of one or several runs over their steps, from the log.jsonl of each. Needs matplotlib."""
    from gqn_model.visualize.learning_curves import write_curves

    write_curves(runs, output)
    click.echo(output)
