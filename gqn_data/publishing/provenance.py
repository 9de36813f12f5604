"""Where a dataset's scenes come from, and what follows: who made them, since when, what is known of a licence.

Only what a source says is said. Imports `manifest` and `scene_sets`.

Sources: github.com/google-deepmind/gqn-datasets for the scene sets (its README names no licence for the data; the
header of its data_reader.py is the Apache License 2.0); science.org/doi/10.1126/science.aar6170 for the paper, its
authors and its date.
"""

from __future__ import annotations

from dataclasses import dataclass

from gqn_data.manifest import Manifest
from gqn_data.scene_sets import SCENE_SETS

_GQN_BUCKET = "gqn-dataset"
_GQN_PAGE = "https://github.com/google-deepmind/gqn-datasets"

CITATION = """\
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


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What can be said of the scenes of a dataset.

    Attributes:
        short: in a word or two, for titles.
        headline: one sentence that nobody should miss.
        licence: what is known of the licence of the data, in sentences.
        page: where they are described; None where nobody knows.
        creator: the organisation that made them; None where nobody knows.
        published: the day they were published, as a date of ISO 8601; None where no source tells.
    """

    short: str
    headline: str
    licence: str
    page: str | None = None
    creator: str | None = None
    published: str | None = None


def provenance(manifest: Manifest) -> Provenance:
    """What can be said of the scenes of a dataset, by the origin that its manifest carries."""
    origin = manifest.origin
    if origin.kind == "rendered":
        return _rendered(manifest)
    if origin.kind == "imported":
        return Provenance(
            short="imported",
            headline="Imported: nothing here tells where these scenes come from, or that they are DeepMind's.",
            licence="None is stated here: where the scenes come from is not known to the program that copied them. "
            "Who publishes them has to know it, and says so beside them, in a file LICENSE.",
        )
    row = SCENE_SETS.get(manifest.scene_set)
    bucket = _GQN_BUCKET if row is None else row.bucket
    if bucket != _GQN_BUCKET:
        return Provenance(
            short=f"from gs://{bucket}",
            headline=f"From the public bucket gs://{bucket}: made by those who published it, not by this project.",
            licence="None is stated here; ask those who published the bucket.",
        )
    return Provenance(
        short="DeepMind's",
        headline=f"DeepMind's own scenes, from their public bucket gs://{bucket}.",
        licence=f"DeepMind state none for the data: the README of {_GQN_PAGE} tells where the files are to be had and "
        "names no licence; the Apache License 2.0 stands in the header of their reader, which is code. Ask them where "
        "you need more than that.",
        page=_GQN_PAGE,
        creator="DeepMind",
        published="2018-06-15",  # the paper's day; the sets came out with it
    )


def about_set(name: str) -> str:
    """What the scenes of a set show, in a clause; empty where the catalogue does not say."""
    return SCENE_SETS[name].about if name in SCENE_SETS else ""


def _rendered(manifest: Manifest) -> Provenance:
    details = manifest.origin.details
    by = _one_line(details.get("renderer", "a renderer that the manifest does not name"))
    told = [f"{key} {_one_line(details[key])}" for key in ("version", "seed") if key in details]
    how = f", {', '.join(told)}" if told else ""
    return Provenance(
        short="rendered",
        headline=f"Rendered by {by}{how}. These are not DeepMind's scenes.",
        licence="None is stated here. The renderer's code is under the Apache License 2.0, which says nothing of the "
        "pictures it makes: who renders a set chooses, and says so beside it, in a file LICENSE.",
    )


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
