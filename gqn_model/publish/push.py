"""Publication of a run on the Hugging Face hub: weights, configuration and a model card, in one commit.

push_run("runs/first", "user/first")
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError
from gqn_data.io import atomic, hub
from gqn_data.io.paths import local_path, parse_dataset_path
from gqn_data.publish.hub import connect, upload
from gqn_data.schema.manifest import CARD_FILE, Manifest
from gqn_model.checkpoint.checkpoint import Step, load_checkpoint
from gqn_model.checkpoint.pull import WEIGHTS_FILE, published_address
from gqn_model.checkpoint.run_folder import CONFIG_FILE, RUN_FILE, RunFacts, read_facts
from gqn_model.checkpoint.safetensors import PRIVATE, export_weights
from gqn_model.publish.card import CardFacts, model_card
from gqn_model.publish.results import read_results


def push_run(run: str | os.PathLike[str], name: str, *, step: Step = None, private: bool = False) -> str:
    """Commit the weights of a run to the hub, with a model card, and return the address with the commit.

    The card has the tables of `gqn evaluate` about the checkpoint. Local paths and the names of servers are left out;
    the address of the dataset is published if it is `hf://` or `render:`.

    Args:
        run: the run's folder.
        name: repository, `USER/NAME`; it is created if it does not exist.
        step: checkpoint to publish: a step, `best`, or None for the newest.
        private: create a private repository.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint or a result is missing or damaged.
        OptionError: the name or an option is not possible, or huggingface_hub is not installed.
        DestinationError: the repository holds something else, or is public and `private` is True.
        StoreError: the upload failed; push again to resume.
    """
    run = local_path(run, "runs lie")
    repository = hub.Repository("model", hub.check_name(name))
    api = connect(repository)
    facts, checkpoint = read_facts(run), load_checkpoint(run, step)
    published = replace(facts, shards=published_address(facts.shards))
    card = model_card(
        CardFacts(
            repository=repository,
            checkpoint=checkpoint,
            run=published,
            manifest=_manifest(facts),
            results=read_results(run, checkpoint.step),
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        weights = export_weights(run, Path(folder) / WEIGHTS_FILE, checkpoint.step)
        pushed = upload(
            api,
            repository,
            {
                CARD_FILE: card.encode(),
                CONFIG_FILE: atomic.json_bytes(checkpoint.config.replaced(PRIVATE).to_json()),
                RUN_FILE: atomic.json_bytes(asdict(published)),
                WEIGHTS_FILE: weights,
            },
            marker=WEIGHTS_FILE,
            message=f"Push {checkpoint.config.model.model} for {checkpoint.scene_set}, step {checkpoint.step}",
            private=private,
        )
    return str(pushed)


def _manifest(facts: RunFacts) -> Manifest | None:
    """Return the manifest of the training's dataset; None if it is not there, or has other scenes by now."""
    try:
        dataset = open_dataset(parse_dataset_path(facts.shards), "train")
    except (GQNError, OSError, ModuleNotFoundError):
        return None
    return dataset.manifest if dataset.fingerprint == facts.fingerprint else None
