"""The Croissant description of a converted dataset: `croissant.json`, for catalogues and loaders.

Every file is listed with its checksum; a file pattern could not carry one. Croissant reads tars of JPEGs and JSON: the
frames of WebDataset shards load as records, and so does the list of shards of every container. For arrays in zarr,
`.npy` and TFRecords it only states shape and type. Facts without a source, such as the publication date of rendered
scenes, are left out.

Source: docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html; the context is copied from `mlcroissant`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

from gqn_data.errors import UnknownName
from gqn_data.publish.provenance import about_set, citation, provenance
from gqn_data.schema.catalog import Split
from gqn_data.schema.manifest import MANIFEST_FILE, FileRow, Manifest

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

# Media types by suffix; for unregistered formats the page that specifies the format, as Croissant requires.
_FORMATS = {
    ".json": "application/json",
    ".tar": "application/x-tar",
    ".npy": "https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html",
    ".tfrecord": "https://www.tensorflow.org/tutorials/load_data/tfrecord",
}
_ZARR = "https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html"

# Location of a scene's frames and cameras in the files of a split.
_ARRAYS = {
    "zarr": "in the array `{what}` of the Zarr v3 group `{split}`",
    "numpy": "a row of the array in `{split}/{what}-*.npy`",
    "mirror": "a row of the array in `{split}_{mirror}.npy`",
    "tfrecord": "the feature `{what}` of a tf.train.Example",
}
_MIRROR = {"frames": "images", "cameras": "viewpoints"}
_SPLIT_URLS = {"train": "cr:TrainingSplit", "test": "cr:TestSplit"}


def croissant(manifest: Manifest) -> dict[str, Any]:
    """Return the description of a dataset, as JSON-LD.

    Raises:
        UnknownName: this version does not know the manifest's format.
    """
    if manifest.format not in (*_ARRAYS, "webdataset"):
        raise UnknownName("format in the manifest", manifest.format, (*_ARRAYS, "webdataset"))
    known = provenance(manifest)
    about = about_set(manifest)
    frames = manifest.frames
    value: dict[str, Any] = {
        "@context": copy.deepcopy(_CONTEXT),  # readers modify the dict they are given
        "@type": "sc:Dataset",
        "name": f"gqn-{manifest.scene_set}-{manifest.format}",
        "description": f"{known.headline} {manifest.scene_set}, a scene set for Generative Query Networks"
        f"{f': {about}' if about else ''}. A scene is {frames.views} views of {frames.height}x{frames.width} pixels, "
        f"each with its camera: {', '.join(manifest.cameras.fields)}{_angles(manifest, ', ')}.",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "citeAs": citation(manifest),
        # The specification requires a licence; a creative work can describe what is known about it.
        "license": {
            "@type": "sc:CreativeWork",
            "name": known.licence_name or "not stated here",
            "description": known.licence,
        },
        "version": f"{manifest.schema}.0.0",  # version of the layout; the scenes of an origin are not versioned
        "keywords": ["gqn", "generative query network", "novel view synthesis", manifest.scene_set, known.short],
    }
    if known.page is not None:
        value["url"] = known.page
    if known.creator is not None:
        value["creator"] = {"@type": "sc:Organization", "name": known.creator}
    if known.published is not None:
        value["datePublished"] = known.published
    value["distribution"] = [
        _manifest_file(manifest),
        *(_file(row) for row in manifest.all_files() if row.sha256 is not None),
        *(file_set for split in manifest.splits for file_set in _file_sets(manifest, split)),
    ]
    value["recordSet"] = [
        _splits(manifest),
        _shards(manifest),
        *(records for split in manifest.splits for records in _records(manifest, split)),
    ]
    return value


def _manifest_file(manifest: Manifest) -> dict[str, Any]:
    text = manifest.to_bytes()
    return _file(FileRow(name=MANIFEST_FILE, bytes=len(text), sha256=hashlib.sha256(text).hexdigest()))


def _file(row: FileRow) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": row.name,
        "contentUrl": row.name,
        "contentSize": f"{row.bytes} B",
        "encodingFormat": _media(row.name),
        "sha256": row.sha256,
    }


def _media(name: str) -> str:
    return next((media for ending, media in _FORMATS.items() if name.endswith(ending)), _ZARR)


def _angles(manifest: Manifest, before: str) -> str:
    """Return the clause with the unit of angles; empty if the cameras are undocumented."""
    angles = manifest.cameras.angles
    return "" if angles == "undocumented" else f"{before}angles in {angles}"


def _file_sets(manifest: Manifest, split: Split) -> Iterator[dict[str, Any]]:
    if manifest.format == "webdataset":
        tars = [{"@id": shard.files[0].name} for shard in manifest.splits[split].shards]
        for what, pattern, media in (("frames", "*.jpg", "image/jpeg"), ("cameras", "*.cameras.npy", _FORMATS[".npy"])):
            yield {
                "@type": "cr:FileSet",
                "@id": f"{split}-{what}-files",
                "containedIn": tars,
                "includes": pattern,
                "encodingFormat": media,
            }
        return
    shards = manifest.splits[split].shards
    includes = {
        "zarr": [f"{split}/frames/c/*", f"{split}/cameras/c/*"],
        "numpy": [f"{split}/frames-*.npy", f"{split}/cameras-*.npy"],
        "mirror": [f"{split}_*.npy"],
        "tfrecord": [shard.files[0].name for shard in shards],
    }[manifest.format]
    yield {
        "@type": "cr:FileSet",
        "@id": f"{split}-files",
        "includes": includes,
        "encodingFormat": _media(shards[0].files[0].name),
    }


def _splits(manifest: Manifest) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "description": "The splits, and the scenes found in each.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "dataType": ["sc:URL", "cr:Split"]},
            {"@type": "cr:Field", "@id": "splits/scenes", "dataType": "sc:Integer"},
        ],
        "data": [
            {"splits/name": name, "splits/url": _SPLIT_URLS[name], "splits/scenes": split.scenes}
            for name, split in manifest.splits.items()
        ],
    }


def _shards(manifest: Manifest) -> dict[str, Any]:
    """Describe the shards as records of the manifest, which Croissant can load for every container."""

    def field(name: str, kind: str, path: str, **more: Any) -> dict[str, Any]:
        source = {"fileObject": {"@id": MANIFEST_FILE}, "extract": {"jsonPath": f"$.splits.*.shards[*].{path}"}, **more}
        return {"@type": "cr:Field", "@id": f"shards/{name}", "dataType": kind, "source": source}

    return {
        "@type": "cr:RecordSet",
        "@id": "shards",
        "description": "The shards, as the manifest lists them: the first file of each, with its checksum.",
        "field": [
            field("file", "sc:Text", "files[0].name"),
            field("split", "sc:Text", "files[0].name", transform={"regex": f"^({'|'.join(manifest.splits)})"}),
            field("scenes", "sc:Integer", "scenes"),
            field("bytes", "sc:Integer", "files[0].bytes"),
            field("sha256", "sc:Text", "files[0].sha256"),
        ],
    }


def _records(manifest: Manifest, split: Split) -> Iterator[dict[str, Any]]:
    cameras = f"The camera of each view: {', '.join(manifest.cameras.fields)}{_angles(manifest, '; ')}"
    views, numbers = manifest.frames.views, len(manifest.cameras.fields)
    if manifest.format == "webdataset":
        yield from _members(split, f"{cameras}. The bytes of a .npy file: float32 ({views}, {numbers}).")
        return
    where = _ARRAYS[manifest.format]
    shape = f"{views},{manifest.frames.height},{manifest.frames.width},3"
    arrays = {
        "frames": ("The frame of each view: red, green, blue", "cr:UInt8", shape),
        "cameras": (cameras, "cr:Float32", f"{views},{numbers}"),
    }
    yield {
        "@type": "cr:RecordSet",
        "@id": split,
        "description": f"The scenes of {split}, one per record. Croissant has no reader for {manifest.format}: "
        "README.md beside this file shows how to read them.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{split}/{what}",
                "description": f"{about}; {where.format(split=split, what=what, mirror=_MIRROR[what])}.",
                "dataType": kind,
                "isArray": True,
                "arrayShape": array_shape,
                "source": {"fileSet": {"@id": f"{split}-files"}},
            }
            for what, (about, kind, array_shape) in arrays.items()
        ],
    }


def _members(split: Split, cameras: str) -> Iterator[dict[str, Any]]:
    """Yield record sets of the members of a split's tars: `0000000007.02.jpg` is view 2 of scene 7."""
    number = ("sc:Integer", "The number of the scene in the split, from 0.", r"^(\d+)\.")
    view = ("sc:Integer", "The number of the view in the scene, from 0.", r"^\d+\.(\d+)\.jpg$")
    record_sets = {
        f"{split}-frames": {
            "frame": ("sc:ImageObject", "The frame of one view.", None),
            "scene": number,
            "view": view,
        },
        f"{split}-cameras": {"cameras": ("sc:Text", cameras, None), "scene": number},
    }
    for records, fields in record_sets.items():
        yield {
            "@type": "cr:RecordSet",
            "@id": records,
            "description": f"The {records.rpartition('-')[2]} of {split}, a member of the tars a record.",
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": f"{records}/{name}",
                    "description": about,
                    "dataType": kind,
                    "source": {
                        "fileSet": {"@id": f"{records}-files"},
                        **(
                            {"extract": {"fileProperty": "filename"}, "transform": {"regex": regex}}
                            if regex
                            else {"extract": {"fileProperty": "content"}}
                        ),
                    },
                }
                for name, (kind, about, regex) in fields.items()
            ],
        }
