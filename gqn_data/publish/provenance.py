"""Provenance of a dataset's scenes: creator, date of publication, licence.

Every statement has a source; facts without one are left out.

Sources: github.com/google-deepmind/gqn-datasets (its README names no licence for the data; the header of its
data_reader.py is the Apache License 2.0); science.org/doi/10.1126/science.aar6170 for the paper, its authors and its
date; github.com/josh-tobin/egqn-datasets (MIT licence; its README names none for the data) and the proceedings of
NeurIPS 2019 for E-GQN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import Manifest

_EGQN_BUCKET = "egqn-datasets"

_CITATION = """\
@article{eslami2018neural,
  title   = {Neural scene representation and rendering},
  author  = {Eslami, S. M. Ali and Jimenez Rezende, Danilo and Besse, Frederic and Viola, Fabio and
             Morcos, Ari S. and Garnelo, Marta and Ruderman, Avraham and Rusu, Andrei A. and Danihelka, Ivo and
             Gregor, Karol and Reichert, David P. and Buesing, Lars and Weber, Theophane and Vinyals, Oriol and
             Rosenbaum, Dan and Rabinowitz, Neil and King, Helen and Hillier, Chloe and Botvinick, Matt and
             Wierstra, Daan and Kavukcuoglu, Koray and Hassabis, Demis},
  journal = {Science},
  volume  = {360},
  number  = {6394},
  pages   = {1204--1210},
  year    = {2018},
  doi     = {10.1126/science.aar6170}
}
"""

_EGQN_CITATION = """\
@inproceedings{tobin2019geometry,
  title     = {Geometry-Aware Neural Rendering},
  author    = {Tobin, Josh and {OpenAI Robotics} and Abbeel, Pieter},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {32},
  pages     = {11559--11569},
  year      = {2019}
}
"""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Known facts about the scenes of a dataset.

    Attributes:
        short: one or two words, for titles.
        headline: the sentence at the top of the card.
        licence: what is known about the licence of the data, in sentences.
        licence_name: name of the licence; None if it is not stated.
        page: URL of a page that describes the scenes; None if unknown.
        creator: organisation that made them; None if unknown.
        published: date of publication in ISO 8601; None if unknown.
    """

    short: str
    headline: str
    licence: str
    licence_name: str | None = None
    page: str | None = None
    creator: str | None = None
    published: str | None = None


_DEEPMIND = Provenance(
    short="DeepMind's",
    headline="DeepMind's own scenes, from their public bucket gs://gqn-dataset.",
    licence="DeepMind state none for the data: the README of https://github.com/google-deepmind/gqn-datasets says "
    "where to download the files, and names no licence. The header of their reader names the Apache License 2.0, for "
    "that code. Ask DeepMind if you need more.",
    page="https://github.com/google-deepmind/gqn-datasets",
    creator="DeepMind",
    published="2018-06-15",  # date of the paper; the sets were released with it
)

_EGQN = Provenance(
    short="E-GQN's",
    headline="The scenes of E-GQN (Tobin et al., 2019), from their public bucket gs://egqn-datasets. "
    "These are not DeepMind's scenes.",
    licence="None is stated for the data: https://github.com/josh-tobin/egqn-datasets is under the MIT licence, which "
    "is the reader's, and its README names none for the files in the bucket.",
    page="https://github.com/josh-tobin/egqn-datasets",
)


def provenance(manifest: Manifest) -> Provenance:
    """Return the provenance that follows from the origin in a manifest."""
    origin = manifest.origin
    if origin.kind == "deepmind":
        return _DEEPMIND
    if origin.kind == "rendered":
        return _rendered(origin.details)
    if _is_egqn(manifest) and origin.details.get("bucket") == f"gs://{_EGQN_BUCKET}":
        return _EGQN
    return _imported(manifest)


def citation(manifest: Manifest) -> str:
    """Return the BibTeX entries of the papers that introduced a scene set."""
    return _CITATION + (_EGQN_CITATION if _is_egqn(manifest) else "")


def about_set(manifest: Manifest) -> str:
    """Return a clause that describes the scenes of a set; empty if the catalogue does not have one."""
    row = SCENE_SETS.get(manifest.scene_set)
    return "" if row is None else row.about


def _is_egqn(manifest: Manifest) -> bool:
    row = SCENE_SETS.get(manifest.scene_set)
    return row is not None and row.bucket == _EGQN_BUCKET


def _rendered(details: Mapping[str, Any]) -> Provenance:
    by = _one_line(details.get("renderer", "a renderer that the manifest does not name"))
    options = [f"{key} {_one_line(details[key])}" for key in ("version", "seed") if key in details]
    how = f", {', '.join(options)}" if options else ""
    return Provenance(
        short="rendered",
        headline=f"Rendered by {by}{how}. These are not DeepMind's scenes.",
        licence="None is stated here. The renderer's code is under the Apache License 2.0, which does not cover the "
        "pictures it makes: choose a licence for a rendered set, and state it beside the set in a file LICENSE.",
    )


def _imported(manifest: Manifest) -> Provenance:
    details = manifest.origin.details
    name = next((_one_line(details[key]) for key in ("licence", "license") if isinstance(details.get(key), str)), None)
    licence = (
        "None is stated here: the program that wrote this does not know it. To publish the scenes, find out, and state "
        "it beside them in a file LICENSE."
        if name is None
        else f"{name}, as stated by the authors of the dataset."
    )
    if manifest.scene_set not in SCENE_SETS:
        return Provenance(
            short="own scenes",
            headline="Own scenes: neither DeepMind's nor rendered by this project.",
            licence=licence,
            licence_name=name,
        )
    where = next((f" from {_one_line(details[key])}" for key in ("bucket", "from") if key in details), "")
    unknown = "nothing here shows" if where else "nothing here shows where these scenes come from, or"
    return Provenance(
        short="imported",
        headline=f"Imported{where}: {unknown} that they are DeepMind's.",
        licence=licence,
        licence_name=name,
    )


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
