"""Make weights of the package from a run: bf16, with a model card that holds the figures of these very weights.

    python tools/pretrained.py RUN --context 1,3,5 [--also DATASET ...]

Writes gqn_model/pretrained/SET/: model.safetensors, config.json, run.json and README.md, the card. The figures are of
the test scenes of the run's dataset, and of each DATASET; evaluations lie in runs/pretrained-SET/evaluation/.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click

from gqn_data.dataset import open_dataset
from gqn_data.errors import ManifestError
from gqn_data.io import atomic
from gqn_data.io.paths import parse_dataset_path
from gqn_data.schema.catalog import Split
from gqn_data.schema.manifest import CARD_FILE
from gqn_model.checkpoint.checkpoint import load_checkpoint
from gqn_model.checkpoint.pretrained import PRETRAINED
from gqn_model.checkpoint.pull import WEIGHTS_FILE, local_pretrained
from gqn_model.checkpoint.run_folder import RUN_FILE, read_facts, write_config
from gqn_model.checkpoint.safetensors import PRIVATE, export_weights
from gqn_model.cli import SweepType
from gqn_model.evaluate import evaluate
from gqn_model.publish.card import CardFacts, model_card
from gqn_model.publish.results import read_results

PRECISION = "bf16"


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--context", type=SweepType(), required=True, help="Numbers of context views.")
@click.option("--also", multiple=True, help="Another dataset to evaluate on.")
@click.option("--scenes", type=int, default=1000, show_default=True, help="Most test scenes.")
def main(run: Path, context: tuple[int, ...], also: tuple[str, ...], scenes: int) -> None:
    """Make the weights of a scene set from a RUN."""
    facts, checkpoint = read_facts(run), load_checkpoint(run, None)
    folder = PRETRAINED / checkpoint.scene_set
    folder.mkdir(parents=True, exist_ok=True)
    export_weights(run, folder / WEIGHTS_FILE, precision=PRECISION)
    write_config(folder, checkpoint.config.replaced(PRIVATE))
    # Used without a dataset, the weights are shown on fresh scenes.
    atomic.write_json(folder / RUN_FILE, asdict(replace(facts, shards=f"render:{checkpoint.scene_set}")))
    copy = local_pretrained(checkpoint.scene_set)
    click.echo(evaluate(copy, facts.shards, context=context, scenes=scenes).table())
    for path in also:
        split: Split = "test"
        try:
            open_dataset(parse_dataset_path(path), split)
        except ManifestError:
            split = "train"
        click.echo(evaluate(copy, path, context=context, split=split).table())
    card = model_card(
        CardFacts(
            repository=None,
            checkpoint=checkpoint,
            run=replace(facts, shards=""),
            manifest=open_dataset(parse_dataset_path(facts.shards), "train").manifest,
            results=read_results(copy, checkpoint.step),
            precision=PRECISION,
        )
    )
    with atomic.writing(folder / CARD_FILE) as file:
        file.write(card.encode())


if __name__ == "__main__":
    main()
