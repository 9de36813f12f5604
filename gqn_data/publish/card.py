"""The dataset card: `README.md` of a converted dataset, with the front matter that Hugging Face reads.

Every sentence follows from the manifest or the catalogue. `_READERS` has one entry per container: how to read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from gqn_data.errors import UnknownName
from gqn_data.publish.provenance import about_set, citation, provenance
from gqn_data.schema.catalog import SCENE_SETS, Split
from gqn_data.schema.manifest import CHECKSUM_FILE, CROISSANT_FILE, MANIFEST_FILE, Manifest

_MAX_SKIPPED_LISTED = 20
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """How to read a container without this project.

    Attributes:
        about: its layout, in sentences.
        needs: packages to install.
        lines: Python that reads `frames` and `cameras` of the first scene of a split, run in the dataset's folder.
    """

    about: Callable[[Manifest], str]
    needs: Callable[[Manifest], str]
    lines: Callable[[Manifest, Split], str]


def dataset_card(manifest: Manifest) -> str:
    """Return the card of a dataset, as Markdown.

    Raises:
        UnknownName: this version does not know the manifest's format.
    """
    if manifest.format not in _READERS:
        raise UnknownName("format in the manifest", manifest.format, _READERS)
    known = provenance(manifest)
    parts = (
        _front_matter(manifest),
        f"# {manifest.scene_set} ({known.short}), {manifest.format}\n",
        f"> **{plain(known.headline)}**\n",
        _contents(manifest),
        _counts(manifest),
        _skipped_records(manifest),
        _usage(manifest),
        _verification(),
        "## Origin\n\nAs the manifest carries it:\n\n"
        f"```json\n{json.dumps(manifest.origin.to_json(), indent=2, ensure_ascii=False)}\n```\n",
        f"## Licence of the data\n\n{plain(known.licence)}\n",
        "## Citation\n\nWhere the scene sets, or the form of their records, come from:\n\n"
        f"```bibtex\n{citation(manifest)}```\n",
        f"Written by {plain(manifest.tool)} with the dataset, from `{MANIFEST_FILE}` alone.\n",
    )
    return "\n".join(part for part in parts if part)


def plain(value: object) -> str:
    """Escape a value for Markdown, on one line: a manifest may contain any text."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|#!~" else letter for letter in text)


def _front_matter(manifest: Manifest) -> str:
    """Return the YAML that the Hugging Face hub reads (hub-docs, datasetcard.md). JSON strings are valid YAML."""
    known = provenance(manifest)
    scenes = sum(split.scenes for split in manifest.splits.values())
    size = next((name for power, name in enumerate(_SIZES, 3) if scenes < 10**power), "n>1B")
    lines = [
        "---",
        f"pretty_name: {json.dumps(f'GQN {manifest.scene_set} ({known.short})')}",
        *(["license: unknown"] if manifest.origin.kind == "deepmind" else []),  # of other scenes, the publisher decides
        "tags:",
        *(f"- {tag}" for tag in ("gqn", "generative-query-network", "novel-view-synthesis", manifest.format)),
        "size_categories:",
        f"- {size}",
    ]
    if manifest.format == "webdataset":
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in manifest.splits:
            lines += [f"  - split: {split}", f'    path: "{split}-*.tar"']
    else:
        lines.append("viewer: false")  # the hub's viewer does not support the container
    return "\n".join([*lines, "---", ""])


def _contents(manifest: Manifest) -> str:
    frames, cameras = manifest.frames, manifest.cameras
    about = about_set(manifest)
    kept = {
        "jpeg": "JPEG, the very bytes of the source"
        if frames.jpeg_quality is None
        else f"JPEG of quality {frames.jpeg_quality}, made from pixels",
        "raw": f"decoded, uint8{f', by {plain(frames.decoder)}' if frames.decoder else ''}",
    }[frames.encoding]
    fields = ", ".join(map(plain, cameras.fields))
    lines = [
        f"`{manifest.scene_set}`, a scene set for Generative Query Networks{f': {about}' if about else ''}.",
        "",
        f"- A scene is {frames.views} views, each a frame and the camera that saw it.",
        f"- A frame is {frames.height} pixels high, {frames.width} wide, red, green, blue; kept as {kept}.",
        f"- A camera is {len(cameras.fields)} numbers ({cameras.dtype}), in this order: {fields}. "
        + (
            "What they mean is not documented."
            if cameras.angles == "undocumented"
            else f"Angles are in {cameras.angles}, positions in units of the set."
        ),
    ]
    if cameras.pose != cameras.fields:
        lines.append(f"- Networks are given {len(cameras.pose)} of them: {', '.join(map(plain, cameras.pose))}.")
    if manifest.origin.kind == "deepmind":
        lines.append("- The field of view is documented nowhere.")
    return "\n".join([*lines, ""])


def _counts(manifest: Manifest) -> str:
    row = SCENE_SETS.get(manifest.scene_set)
    lines = [
        "## How much of it",
        "",
        "Found here, beside what the whole scene set is expected to hold:",
        "",
        "| split | scenes | whole set | source files | whole set | shards | bytes |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, split in manifest.splits.items():
        held = sum(file.bytes for file in (*(f for shard in split.shards for f in shard.files), *split.files))
        about = "" if row is None or row.split(name).settled else "about "
        scenes = f"{about}{split.expected_scenes:,}" if split.expected_scenes else "not known"
        files = f"{split.expected_files:,}" if split.expected_files else "-"
        lines.append(
            f"| {name} | {split.scenes:,} | {scenes} | {len(split.sources):,} | {files} | "
            f"{len(split.shards):,} | {held:,} |"
        )
    lines.append("")
    if manifest.origin.kind == "rendered":
        lines += ["The whole set is DeepMind's; scenes that are rendered are as many as were asked for.", ""]
    if manifest.limit is not None:
        lines += [f"**Limited** to {manifest.limit:,} scenes of each split when it was converted.", ""]
    lines += [f"Every shard with its scenes, bytes and SHA-256, and every source file: `{MANIFEST_FILE}`.", ""]
    return "\n".join(lines)


def _skipped_records(manifest: Manifest) -> str:
    skipped = [
        (source.name, row) for split in manifest.splits.values() for source in split.sources for row in source.skipped
    ]
    if not skipped:
        return ""
    lines = [
        "## Records left out",
        "",
        f"{len(skipped):,} corrupt records of the source files are not here:",
        "",
        *(
            f"- {plain(name)}, record {row.record:,} at byte {row.offset:,}: {plain(row.reason)}"
            for name, row in skipped[:_MAX_SKIPPED_LISTED]
        ),
    ]
    if len(skipped) > _MAX_SKIPPED_LISTED:
        lines.append(f"- and {len(skipped) - _MAX_SKIPPED_LISTED:,} more, in `{MANIFEST_FILE}`")
    return "\n".join([*lines, ""])


def _usage(manifest: Manifest) -> str:
    reader, split = _READERS[manifest.format], next(iter(manifest.splits))
    frames, cameras = manifest.frames, len(manifest.cameras.fields)
    shape = f"({frames.views}, {frames.height}, {frames.width}, 3)"
    return "\n".join(
        [
            "## Reading it",
            "",
            f"{reader.about(manifest)} From this folder, the first scene of {split}, with {reader.needs(manifest)}:",
            "",
            f"```python\n{reader.lines(manifest, split)}```",
            "",
            f"`frames` are uint8 {shape}, `cameras` float32 ({frames.views}, {cameras}).",
            "",
            "With gqn-toolkit, which reads every container alike, also from a URL, and makes batches for PyTorch:",
            "",
            "```python",
            "import gqn_data",
            "",
            f'scenes = gqn_data.open(".", split="{split}")',
            "frames, cameras = scenes[0].frames, scenes[0].cameras",
            "```",
            "",
        ]
    )


def _verification() -> str:
    return "\n".join(
        [
            "## Checking it",
            "",
            "```sh",
            f"sha256sum -c {CHECKSUM_FILE}     # every file, with nothing but coreutils",
            "gqn-data verify --deep .       # also counts, and every frame decoded",
            "```",
            "",
            f"`{CROISSANT_FILE}` describes the dataset for programs (mlcommons.org/croissant). "
            f"`{MANIFEST_FILE}` was written last: without it the copy is not whole.",
            "",
        ]
    )


def _zarr_needs(manifest: Manifest) -> str:
    if manifest.frames.encoding == "raw":
        return "`zarr` 3"
    return (
        "`zarr` 3 and the codec `imagecodecs_jpeg`, from the package `imagecodecs` (Python 3.12 and newer) or from "
        "gqn-toolkit, which registers it"
    )


def _zarr_lines(manifest: Manifest, split: Split) -> str:  # noqa: ARG001
    return (
        "import zarr\n"
        "\n"
        f'group = zarr.open_group("{split}", mode="r")\n'
        'frames, cameras = group["frames"][0], group["cameras"][0]\n'
    )


def _numpy_lines(manifest: Manifest, split: Split) -> str:
    frames, cameras = (row.name for row in manifest.splits[split].shards[0].files)
    return (
        "import numpy as np\n"
        "\n"
        f'frames = np.load("{frames}", mmap_mode="r")[0]\n'
        f'cameras = np.load("{cameras}", mmap_mode="r")[0]\n'
    )


def _webdataset_lines(manifest: Manifest, split: Split) -> str:
    names = [shard.files[0].name for shard in manifest.splits[split].shards]
    stem, first, last = names[0][:-10], names[0][-10:-4], names[-1][-10:-4]  # train-000000.tar
    tars = names[0] if len(names) == 1 else f"{stem}{{{first}..{last}}}.tar"
    views = manifest.frames.views
    digits = max(2, len(str(views - 1)))
    return (
        "import webdataset\n"
        "\n"
        f'scenes = webdataset.WebDataset("{tars}", shardshuffle=False).decode("rgb8")\n'
        "scene = next(iter(scenes))\n"
        f'frames = [scene[f"{{view:0{digits}d}}.jpg"] for view in range({views})]\n'
        'cameras = scene["cameras.npy"]\n'
    )


def _tfrecord_lines(manifest: Manifest, split: Split) -> str:
    views, numbers = manifest.frames.views, len(manifest.cameras.fields)
    return (
        "import io\n"
        "\n"
        "import numpy as np\n"
        "from PIL import Image\n"
        "from tfrecord import example_pb2, reader\n"
        "\n"
        f'record = next(reader.tfrecord_iterator("{manifest.splits[split].shards[0].files[0].name}"))\n'
        "scene = example_pb2.Example.FromString(bytes(record)).features.feature\n"
        'frames = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in scene["frames"].bytes_list.value]\n'
        f'cameras = np.array(scene["cameras"].float_list.value, np.float32).reshape({views}, {numbers})\n'
    )


_READERS = {
    "zarr": _Reader(
        about=lambda _: "A Zarr v3 group a split, with the arrays `frames` and `cameras`.",
        needs=_zarr_needs,
        lines=_zarr_lines,
    ),
    "numpy": _Reader(
        about=lambda manifest: (
            "Arrays in `.npy` files, to be memory-mapped. Shard k of a split begins at scene k times "
            + ", ".join(f"{split.scenes_per_shard:,} ({name})" for name, split in manifest.splits.items())
            + "."
        ),
        needs=lambda _: "`numpy`",
        lines=_numpy_lines,
    ),
    "mirror": _Reader(
        about=lambda _: (
            "The layout of the public numpy mirror: per split, one array of images and one of viewpoints in `.npy` "
            "files, to be memory-mapped."
        ),
        needs=lambda _: "`numpy`",
        lines=_numpy_lines,
    ),
    "webdataset": _Reader(
        about=lambda _: (
            "Plain tars, a sample a scene: `KEY.cameras.npy`, `KEY.00.jpg`, `KEY.01.jpg` ...; the key is the "
            "scene's number. The `.index.npy` beside each tar makes it random access and may be ignored."
        ),
        needs=lambda _: "`webdataset`",
        lines=_webdataset_lines,
    ),
    "tfrecord": _Reader(
        about=lambda _: (
            "TFRecords, a `tf.train.Example` a scene: `frames`, the JPEG of each view, and `cameras`. "
            "The `.index.npy` beside each file makes it random access and may be ignored."
        ),
        needs=lambda _: "`tfrecord` and `pillow`",
        lines=_tfrecord_lines,
    ),
}
