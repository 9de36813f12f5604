"""The command `gqn-data`. Each command parses its options, calls one function and prints the result.

Heavy imports happen inside the commands, so that `--help` is fast.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from gqn_data.cli_options import (
    FAILED,
    SETTINGS,
    Commands,
    LocalPathType,
    OutputType,
    PathType,
    complete_path,
    host_option,
    json_option,
    log,
    port_option,
    print_result,
    shown,
)
from gqn_data.errors import OptionError
from gqn_data.io.paths import AnyPath, RenderAddress, parse_dataset_path
from gqn_data.schema.catalog import SCENE_SETS, SPLITS, SceneSet
from gqn_data.units import count_of
from gqn_data.version import VERSION

if TYPE_CHECKING:
    from gqn_data.convert.destination import Conversion


def cluster(scheduler: str | None, workers: int | None) -> Any:
    """Return a context manager of the Dask cluster as an executor, or of None without `--scheduler`."""
    if scheduler is None:
        return contextlib.nullcontext()
    if workers is not None:
        raise click.UsageError("--workers is for processes on this machine, --scheduler for a cluster; leave out one")
    from gqn_data.executors.dask import connect

    return connect(scheduler, log)


def _complete_source(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the name of a scene set, or a path if no name begins so."""
    names = [name for name in SCENE_SETS if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or complete_path(ctx, param, incomplete)


_root = click.option("--root", type=PathType(), help="Data root: a folder or a URL.  [default: $GQN_DATA, else ./data]")
_set = click.option("--set", "set_name", help="Scene set, if the folder name does not identify it.")
_workers = click.option("--workers", type=click.IntRange(1, 1024), help="Number of processes.  [default: one per core]")
_scheduler = click.option(
    "--scheduler", metavar="ADDRESS", help="Run on a Dask cluster: tcp://host:port, or a scheduler file."
)


def _part_of(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    from gqn_data.executors.job_array import Part

    return None if value is None else Part.parse(value)


_part = click.option(
    "--shard", "part", metavar="I/N", callback=_part_of, help="Part I of N for job arrays, from 0: 0/8 ... 7/8."
)
_files = click.option("--files", help="Source files to fetch, by number: 1-20 or 3,7-9.  [default: all]")
_base_url = click.option(
    "--base-url", help="Mirror to fetch from.  [default: $GQN_BASE_URL, else the set's public bucket]"
)
_on_corrupt = click.option(
    "--on-corrupt",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do at a corrupt record.",
)
_shard_mb = click.option(
    "--shard-mb", type=click.IntRange(1), default=256, show_default=True, help="Approximate shard size in MiB."
)
_split = click.option("--split", type=click.Choice(SPLITS), help="Only this split.  [default: both]")

# Scenes of TFRecords without an index that `explore` shows.
_SCENES_TO_EXPLORE = 100


@click.group("gqn-data", cls=Commands, context_settings=SETTINGS)
@click.version_option(VERSION, prog_name="gqn-data")
def main() -> None:
    """Render, download, convert, check and view GQN scene sets.

    SET is the name or alias of a scene set (see `gqn-data list`). PATH is the folder of a dataset, or a folder of
    TFRecords in train/ and test/.
    """


@main.command("list")
@click.option("--names", is_flag=True, help="Only the names, one per line.")
@click.option("--rendered", is_flag=True, help="Only the sets that `gqn-data render` can make.")
@json_option
def list_sets(names: bool, rendered: bool, as_json: bool) -> None:
    """List the scene sets, with what is expected of each."""
    from dataclasses import asdict

    from gqn_data.render import RENDERERS

    listed = [row for row in SCENE_SETS.values() if not rendered or row.name in RENDERERS]
    if names:
        print_result([row.name for row in listed], [row.name for row in listed], as_json=as_json)
        return
    heads = "set / aliases", "frame", "views", "scenes", "size", "render"
    rows = [
        (
            row.name + ("" if row.settled else " *"),
            f"{row.frame_size}x{row.frame_size}",
            str(row.views),
            _scene_count(row),
            f"{row.raw_bytes / 1e9:,.0f} GB" if row.raw_bytes else "?",
            "yes" if row.name in RENDERERS else "no",
        )
        for row in listed
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (heads, *rows)]
    lines = table[:1]
    for row, line in zip(listed, table[1:]):
        lines += [line, f"  {', '.join(row.aliases)}"]
    lines += [
        "scenes: train and test, as announced; size: all TFRecords; --json: all facts",
        "?: sources disagree or are silent; *: E-GQN, availability unsettled",
    ]
    print_result([asdict(row) | {"rendered": row.name in RENDERERS} for row in listed], lines, as_json=as_json)


def _scene_count(row: SceneSet) -> str:
    """Return the expected number of scenes of both splits in short: `12M`, `11.3M?` if it is not settled."""
    scenes = row.train.scenes + row.test.scenes
    if not scenes:
        return "?"
    short = f"{scenes / 1e6:.3g}M" if scenes >= 1e6 else f"{scenes / 1e3:.3g}k"
    return short if row.train.settled and row.test.settled else f"{short}?"


@main.command()
@click.argument("source", metavar="SET|PATH", shell_complete=_complete_source)
@_set
@_root
@json_option
def info(source: str, set_name: str | None, root: AnyPath | None, as_json: bool) -> None:
    """Describe a dataset or a folder of TFRecords."""
    from gqn_data.formats import WRITABLE
    from gqn_data.inspect.info import describe, describe_stream
    from gqn_data.io.atomic import data_root
    from gqn_data.sources.raw_folder import locate_source_or_dataset

    path = parse_dataset_path(source)
    if isinstance(path, RenderAddress):
        found = describe_stream(path)
    else:
        found = describe(*locate_source_or_dataset(source, data_root(root), set_name, WRITABLE))
    print_result(found.manifest.to_json(), found.lines(), as_json=as_json)


@main.command()
@click.argument("source", metavar="SET|PATH", shell_complete=_complete_source)
@_set
@_root
@click.option("--deep", is_flag=True, help="Also decode every frame.")
@_workers
@_scheduler
@_part
@json_option
def verify(
    source: str,
    set_name: str | None,
    root: AnyPath | None,
    deep: bool,
    workers: int | None,
    scheduler: str | None,
    part: Any,
    as_json: bool,
) -> None:
    """Check a dataset or TFRecords against their checksums.

    Prints every fault, one per line; exit status 1 if there are any. TFRecords are checked record by record.
    """
    from dataclasses import asdict

    from gqn_data.formats import WRITABLE
    from gqn_data.inspect.verify import verify as verify_folder
    from gqn_data.io.atomic import data_root, human_bytes
    from gqn_data.sources.raw_folder import locate_source_or_dataset

    folder, scene_set = locate_source_or_dataset(source, data_root(root), set_name, WRITABLE)
    with cluster(scheduler, workers) as executor:
        found = verify_folder(folder, scene_set, deep=deep, workers=workers, executor=executor, part=part)
    decoded = f", {count_of(found.frames, 'frame')} decoded" if deep else ""
    verdict = count_of(len(found.faults), "fault") if found.faults else "all good"
    lines = [*found.faults, f"{count_of(found.files, 'file')}, {human_bytes(found.bytes)}{decoded}: {verdict}"]
    lines += [f"to fetch them again: {command}" for command in found.fetch_again]
    print_result(asdict(found), lines, as_json=as_json)
    if found.faults:
        sys.exit(FAILED)


@main.command()
@click.argument("source", metavar="SET|PATH", shell_complete=_complete_source)
@_set
@_root
@click.option(
    "-o", "--output", type=OutputType("pictures are written"), required=True, help="Picture to write: .png or .jpg."
)
@click.option("--split", type=click.Choice(SPLITS), help="Split to draw.  [default: train]")
@click.option("--scenes", "rows", type=click.IntRange(1, 100), default=8, show_default=True, help="Rows.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first scene.")
@click.option(
    "--views", "columns", type=click.IntRange(1, 100), default=10, show_default=True, help="Number of columns."
)
@click.option(
    "--scale", metavar="N", type=click.IntRange(1, 16), default=1, show_default=True, help="Enlarge frames N times."
)
def view(
    source: str,
    set_name: str | None,
    root: AnyPath | None,
    output: Path,
    split: Any,
    rows: int,
    first: int,
    columns: int,
    scale: int,
) -> None:
    """Draw scenes as rows and views as columns, with numbers."""
    from gqn_data.convert.index import temporary_index
    from gqn_data.dataset import open_dataset
    from gqn_data.formats import WRITABLE
    from gqn_data.inspect.contact_sheet import captioned_sheet
    from gqn_data.io.atomic import data_root
    from gqn_data.io.pictures import write_picture
    from gqn_data.sources.raw_folder import locate_dataset, unindexed

    path = locate_dataset(source, data_root(root), set_name, WRITABLE)
    with contextlib.ExitStack() as stack:
        raw = None if isinstance(path, RenderAddress) else unindexed(path, set_name)
        if isinstance(path, RenderAddress):
            path = path.bounded(first + rows)
        elif raw is not None:
            path = stack.enter_context(temporary_index(raw, None if split is None else (split,), first + rows))
        dataset = open_dataset(path, split)
        scenes = range(first, min(first + rows, max(len(dataset), first + 1)))
        write_picture(captioned_sheet(dataset, scenes, columns, scale), output)
    click.echo(output)


@main.command()
@click.argument("source", metavar="SET|PATH", shell_complete=_complete_source)
@_set
@_root
@port_option
@host_option
def explore(source: str, set_name: str | None, root: AnyPath | None, port: int, host: str) -> None:
    """Open a dataset in the browser.

    The page shows the cameras of a scene in space, with their frames. Ctrl-C closes it. Of TFRecords without an index
    the first scenes are shown.
    """
    from gqn_data.convert.index import temporary_index
    from gqn_data.formats import WRITABLE
    from gqn_data.io.atomic import data_root
    from gqn_data.sources.raw_folder import locate_dataset, unindexed
    from gqn_data.viewer.explore import explore as explore_dataset

    path = locate_dataset(source, data_root(root), set_name, WRITABLE)
    with contextlib.ExitStack() as stack:
        raw = None if isinstance(path, RenderAddress) else unindexed(path, set_name)
        if raw is not None:
            log(f"{path}: no index, showing the first {_SCENES_TO_EXPLORE} scenes of each split")
            path = stack.enter_context(temporary_index(raw, tuple(raw.files), _SCENES_TO_EXPLORE))
        explore_dataset(path, host=host, port=port, log=log, opened=click.echo)
    log("viewer closed")


@main.command()
@click.argument("source", metavar="SET|PATH", shell_complete=_complete_source)
@_set
@_root
@click.option(
    "--out",
    type=OutputType("indexes are written"),
    help="Folder for the index and links to the files, if their own cannot be written.",
)
@_on_corrupt
@_workers
@_scheduler
@json_option
def index(
    source: str,
    set_name: str | None,
    root: AnyPath | None,
    out: Path | None,
    on_corrupt: Any,
    workers: int | None,
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Index TFRecords, so that they can be trained on in place.

    Checks every record, and stores where each frame lies.
    """
    from gqn_data.convert.index import index_raw_folder, link_raw_folder
    from gqn_data.executors.pool import usable_cores
    from gqn_data.inspect.info import describe
    from gqn_data.io.atomic import data_root
    from gqn_data.sources.raw_folder import locate, open_raw_folder

    folder, scene_set = locate(source, data_root(root), set_name)
    raw = open_raw_folder(folder, scene_set)
    if out is not None:
        raw = link_raw_folder(raw, out)
    with cluster(scheduler, workers) as executor:
        index_raw_folder(raw, on_corrupt=on_corrupt, workers=workers or usable_cores(), executor=executor)
    found = describe(raw.folder, scene_set)
    print_result(found.manifest.to_json(), found.lines(), as_json=as_json)


@main.command()
@click.argument("source", metavar="SET|PATH", shell_complete=_complete_source)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["zarr", "numpy", "webdataset", "tfrecord", "mirror"]),
    multiple=True,
    default=("zarr",),
    show_default=True,
    help="Container to write; repeatable.",
)
@_set
@_root
@click.option("--out", type=PathType(), help="Data root to write to: a folder or a URL.  [default: --root]")
@click.option("--frames", type=click.Choice(["jpeg", "raw"]), help="Encoding of frames.  [default: unchanged]")
@click.option("--jpeg-quality", type=click.IntRange(1, 100), help="Quality of JPEGs made of decoded frames.")
@_split
@click.option("--limit", metavar="N", type=click.IntRange(1), help="At most N scenes per split.")
@_on_corrupt
@_shard_mb
@_workers
@_scheduler
@_part
@click.option("--fetch", is_flag=True, help="Also fetch missing source files if some are present.")
@_files
@_base_url
@click.option("--keep-raw", is_flag=True, help="Keep the fetched source files.")
@click.option(
    "--window-gb",
    type=click.FloatRange(0, min_open=True),
    help="Approximate GB of fetched files on the disk at a time.  [default: a few shards]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset.")
@click.option("--dry-run", is_flag=True, help="Print what would be written; write nothing.")
@json_option
def convert(
    source: str,
    formats: tuple[str, ...],
    set_name: str | None,
    root: AnyPath | None,
    out: AnyPath | None,
    split: Any,
    shard_mb: int,
    workers: int | None,
    scheduler: str | None,
    part: Any,
    fetch: bool,
    files: str | None,
    base_url: str | None,
    keep_raw: bool,
    window_gb: float | None,
    dry_run: bool,
    as_json: bool,
    **more: Any,
) -> None:
    """Convert TFRecords or a dataset to another container.

    JPEG bytes are copied without loss. An interrupted conversion resumes when the command is rerun. Without
    source files of SET in the data root, they are fetched during the conversion, a window of files at a time.
    """
    from gqn_data.convert.plan import Options
    from gqn_data.convert.resolve_source import convert_source, locate_source
    from gqn_data.convert.run import convert_part, plan_only
    from gqn_data.download.bucket import parse_files
    from gqn_data.io.atomic import data_root, human_bytes

    options = Options(
        formats=tuple(dict.fromkeys(formats)),
        splits=(split,) if split else None,
        shard_bytes=shard_mb << 20,
        workers=workers,
        **more,
    )
    target = out if out is not None else data_root(root)
    wanted = None if files is None else parse_files(files)
    asked = fetch or keep_raw or wanted is not None
    supply = locate_source(source, data_root(root), target, set_name, base_url=base_url, fetch=asked)
    folder, scene_set = supply.folder, supply.scene_set
    if supply.bucket is not None and (dry_run or part is not None):
        raise OptionError(
            f"{scene_set.name}: no source files in the data root, expected them for --dry-run and --shard. "
            f"Fetch them first: gqn-data download {scene_set.name}"
        )
    if dry_run:
        plans = plan_only(folder, scene_set, target, options)
        print_result(
            [{"folder": str(p.folder), "shards": len(p.shards), "bytes": p.stored_bytes} for p in plans],
            [f"{p.folder}: {count_of(len(p.shards), 'shard')}, about {human_bytes(p.stored_bytes)}" for p in plans],
            as_json=as_json,
        )
        return
    if part is not None:
        with cluster(scheduler, workers) as executor:
            parts = convert_part(folder, scene_set, target, options, part, log, executor=executor)
        print_result(
            [{**vars(row), "folder": str(row.folder)} for row in parts],
            [
                f"{shown(row.folder, target)}: part {part}, {count_of(row.written, 'shard')} written, {row.kept} kept; "
                f"{row.done} of {row.shards} complete"
                for row in parts
            ],
            as_json=as_json,
        )
        return
    with cluster(scheduler, workers) as executor:
        done = convert_source(
            supply,
            target,
            options,
            log,
            files=wanted,
            keep_raw=keep_raw,
            window=None if window_gb is None else int(window_gb * 1e9),
            executor=executor,
        )
    print_result(_datasets_json(done), _datasets_lines(done, target), as_json=as_json)


def _datasets_json(done: Sequence[Conversion]) -> list[dict[str, Any]]:
    return [{"folder": str(result.folder), **result.manifest.to_json()} for result in done]


def _rate(value: float) -> str:
    """Return a rate as text, with three digits for small ones."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _datasets_lines(done: Sequence[Conversion], root: AnyPath) -> list[str]:
    """Return one line per dataset below the data root."""
    from gqn_data.io.atomic import human_bytes

    lines = []
    for result in done:
        manifest = result.manifest
        scenes = sum(row.scenes for row in manifest.splits.values())
        size = human_bytes(sum(row.bytes for row in manifest.all_files()))
        rate = f", {_rate(scenes / result.seconds)} scenes/s" if result.written and not result.kept else ""
        skipped = sum(len(source.skipped) for row in manifest.splits.values() for source in row.sources)
        left_out = f"; {count_of(skipped, 'corrupt record')} skipped (listed in the manifest)" if skipped else ""
        lines.append(f"{shown(result.folder, root)}: {count_of(scenes, 'scene')}, {size}{rate}{left_out}")
    return lines


@main.command()
@click.argument("scene_set", metavar="SET", shell_complete=_complete_source)
@click.option("--scenes", type=int, required=True, help="Number of scenes, over both splits unless --split is given.")
@_root
@click.option("--split", type=click.Choice(SPLITS), help="Only this split.  [default: nine scenes in ten to train]")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed renders the same bytes.")
@click.option("--size", "frame_size", type=int, help="Frame size in pixels, 16 to 512.  [default: the set's]")
@click.option("--views", type=int, help="Views per scene, 1 to 1000.  [default: the set's]")
@click.option("--jpeg-quality", "quality", type=int, default=95, show_default=True, help="JPEG quality, 1 to 100.")
@click.option(
    "--supersample/--no-supersample",
    default=None,
    help="Four rays per pixel, or one.  [default: one for mazes and Shepard-Metzler, as in their real frames]",
)
@click.option("--status-line/--no-status-line", default=True, help="mazes: draw the status line of the real frames.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["tfrecord", "zarr", "numpy", "webdataset", "mirror"]),
    multiple=True,
    default=("tfrecord",),
    show_default=True,
    help="Container to write; repeatable. TFRecords are kept only if requested.",
)
@_shard_mb
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset, but not TFRecords.")
@_workers
@_scheduler
@_part
@json_option
def render(
    scene_set: str,
    root: AnyPath | None,
    formats: tuple[str, ...],
    shard_mb: int,
    overwrite: bool,
    workers: int | None,
    scheduler: str | None,
    part: Any,
    as_json: bool,
    **request_options: Any,
) -> None:
    """Render scenes in DeepMind's schema.

    Writes TFRecords under DeepMind's file names, or datasets. Needs no download. An interrupted run resumes when the
    command is rerun.
    """
    from gqn_data.convert.from_renderer import render_formats
    from gqn_data.convert.plan import Options
    from gqn_data.io.atomic import data_root
    from gqn_data.render.request import Request

    request = Request.of(scene_set, **request_options)
    options = Options(
        formats=tuple(dict.fromkeys(formats)), overwrite=overwrite, shard_bytes=shard_mb << 20, workers=workers
    )
    with cluster(scheduler, workers) as executor:
        target = data_root(root)
        report, done = render_formats(request, target, options, log, part=part, executor=executor)
    value: Any = _datasets_json(done)
    lines = _datasets_lines(done, target)
    if report is not None:
        value = {**report._asdict(), "folder": str(report.folder)} | ({"datasets": value} if done else {})
        rate = f", {_rate(report.frames / report.seconds)} frames/s" if report.frames else ""
        files = f"{count_of(report.files_written, 'file')} written, {report.files_kept} kept"
        lines.insert(0, f"{shown(report.folder, target)}: {count_of(report.scenes, 'scene')}; {files}{rate}")
    print_result(value, lines, as_json=as_json)


@main.command("import")
@click.argument("folder", type=LocalPathType("photos are read"))
@click.option("--out", type=PathType(), help="Folder of the dataset.  [default: <root>/<format>/<name>]")
@_root
@click.option("--name", help="Name of the scene set.  [default: the folder's name, in lower case]")
@click.option(
    "--format",
    "container",
    type=click.Choice(["zarr", "numpy", "webdataset", "tfrecord", "mirror"]),
    default="zarr",
    show_default=True,
    help="Container to write.",
)
@click.option("--size", type=int, default=64, show_default=True, help="Frame size in pixels, 16 to 512.")
@click.option(
    "--views",
    metavar="N",
    type=int,
    help="Views per scene; more photos of a folder make several scenes.  "
    "[default: the fewest photos of a folder, or 10 for a single folder]",
)
@click.option(
    "--test-every",
    metavar="N",
    type=int,
    default=8,
    show_default=True,
    help="Put every N-th folder, or scene of a single folder, in the test split; 0 for none.",
)
@click.option(
    "--roll",
    type=click.Choice(["refuse", "drop", "level"]),
    default="refuse",
    show_default=True,
    help="Photos whose camera is turned about its axis by more than 5 degrees.",
)
@click.option(
    "--up",
    type=click.Choice(["auto", "x", "y", "z", "-x", "-y", "-z"]),
    default="auto",
    show_default=True,
    help="Direction in the camera files that is up; auto estimates it from the cameras.",
)
@click.option(
    "--scale",
    metavar="scene|set|FACTOR",
    default="scene",
    show_default=True,
    help="Bring the cameras of each folder, or of the set, to distance 1; or multiply positions by a factor.",
)
@click.option(
    "--field-of-view",
    metavar="DEGREES",
    type=float,
    help="Angle between the edges of a frame.  [default: the largest that all photos fill]",
)
@click.option(
    "--depth-range",
    metavar="NEAR FAR",
    type=(float, float),
    help="Depths of surfaces, in units of the camera files.  [default: estimated]",
)
@click.option("--jpeg-quality", type=click.IntRange(1, 100), help="Store frames as JPEG of this quality.")
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset.")
@json_option
def import_command(
    folder: Path,
    out: AnyPath | None,
    root: AnyPath | None,
    name: str | None,
    container: str,
    scale: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Import photos with known cameras.

    FOLDER holds photos and their cameras: transforms.json (nerfstudio), a COLMAP model in sparse/, or cameras.csv.
    Or it holds such folders, one per place.
    """
    from gqn_data.import_photos import import_photos
    from gqn_data.import_photos.run import plain_name
    from gqn_data.io.atomic import data_root

    name = name or plain_name(out.name if out is not None else folder.absolute().name)
    target = out if out is not None else data_root(root) / container / name
    done = import_photos(folder, target, name=name, format=container, scale=_scale_of(scale), log=log, **options)
    print_result(done.to_json(), done.lines(shown(target, target)), as_json=as_json)


def _scale_of(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


@main.command()
@click.argument("scene_set", metavar="SET", shell_complete=_complete_source)
@_root
@_split
@_files
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="Fetch only the files of the first N scenes per split."
)
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True, help="Parallel downloads.")
@_base_url
@click.option("--recheck", is_flag=True, help="Check existing files, and fetch damaged ones again.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds without data, or below 1 kB/s, before a retry.",
)
@json_option
def download(scene_set: str, root: AnyPath | None, files: str | None, as_json: bool, **options: Any) -> None:
    """Download the TFRecords of a set and check every record.

    Files come from the public bucket or a mirror, and appear only when complete. An interrupted download resumes
    within a file when the command is rerun; existing files are not fetched again.
    """
    from gqn_data.download import download as download_set
    from gqn_data.download.bucket import parse_files
    from gqn_data.io.atomic import data_root, human_bytes
    from gqn_data.schema.catalog import find_scene_set

    target = data_root(root)
    numbers = None if files is None else parse_files(files)
    done = download_set(find_scene_set(scene_set), target, files=numbers, log=log, **options)
    rate = f", {human_bytes(done.bytes / done.seconds)}/s" if done.bytes else ""
    counts = f"{count_of(len(done.fetched), 'file')} fetched, {count_of(done.scenes, 'scene')}"
    line = (
        f"{shown(done.folder, target)}: {counts}, {human_bytes(done.bytes)}{rate}; {count_of(done.kept, 'file')} kept"
    )
    print_result(done.to_json(), [line], as_json=as_json)


def _context_of(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | str | None:
    if value is None or value == "all":
        return value
    low, _, high = value.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal():
        raise click.BadParameter(f"{value!r}, expected a number such as 5, a range such as 1-5, or all")
    return int(low), int(high or low)


def _counts_of(_ctx: click.Context, _param: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    counts = value.split(",")
    if not all(count.isdecimal() and int(count) <= 1024 for count in counts):
        raise click.BadParameter(f"{value!r}, expected numbers up to 1024 such as 0,1,2,4")
    return [int(count) for count in counts]


@main.command()
@click.argument("source", metavar="SET|PATH", shell_complete=_complete_source)
@_set
@_root
@click.option("--split", type=click.Choice(SPLITS), help="Split to measure.  [default: train]")
@click.option("--batch-size", type=click.IntRange(1), default=36, show_default=True, help="Scenes per batch.")
@click.option(
    "--context",
    metavar="N|LOW-HIGH|all",
    callback=_context_of,
    help="Context views.  [default: as `gqn train`]",
)
@click.option(
    "--workers",
    metavar="0,1,2...",
    callback=_counts_of,
    help="Numbers of workers to measure.  [default: several up to the number of cores]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Seconds per measurement.",
)
@click.option(
    "--step-ms",
    "steps_ms",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    help="Milliseconds per training step, for advice on workers; repeatable.  [default: several]",
)
@click.option(
    "--plot",
    type=LocalPathType("plots are written"),
    help="Also write a plot: .png, .jpg, .pdf or .svg. Needs matplotlib.",
)
@json_option
def bench(
    source: str,
    set_name: str | None,
    root: AnyPath | None,
    steps_ms: tuple[float, ...],
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the loader on your data and machine.

    Compares it with bare decoding, and recommends a number of workers.
    """
    from gqn_data.bench.advice import STEPS_MS
    from gqn_data.bench.measure import bench as measure
    from gqn_data.bench.plot import check_plot, write_plot
    from gqn_data.formats import WRITABLE
    from gqn_data.io.atomic import data_root
    from gqn_data.sources.raw_folder import locate_dataset

    if plot is not None:
        check_plot(plot)
    path = locate_dataset(source, data_root(root), set_name, WRITABLE)
    found = measure(path, steps_ms=steps_ms or STEPS_MS, log=log, **options)
    if plot is not None:
        write_plot(found, plot)
    print_result(found.to_json(), found.lines(), as_json=as_json)


@main.command()
@click.argument("folder", type=LocalPathType("datasets to push lie"))
@click.argument("name", metavar="USER/NAME")
@click.option("--private", is_flag=True, help="Create a private repository.")
@_workers
@json_option
def push(folder: Path, name: str, private: bool, workers: int | None, as_json: bool) -> None:
    """Publish a converted dataset on the Hugging Face hub.

    Checks every checksum first. All files appear in one commit; an interrupted push resumes when the command is rerun.
    Needs the extra hub, and HF_TOKEN or `hf auth login`.
    """
    from gqn_data.push import push_dataset

    address = push_dataset(folder, name, private=private, workers=workers)
    print_result({"address": address}, [address], as_json=as_json)


@main.command()
@click.option(
    "--cache",
    "folder",
    type=LocalPathType("copies are kept"),
    help="Folder of the copies.  [default: $GQN_CACHE, else ~/.cache/gqn-toolkit]",
)
@click.option("--verify", "verifies", is_flag=True, help="Check every checksum; remove damaged copies.")
@click.option("--clear", is_flag=True, help="Remove all copies.")
@json_option
def cache(folder: Path | None, verifies: bool, clear: bool, as_json: bool) -> None:
    """Show, check or empty the cache of remote shards.

    Safe during a training, which fetches missing files again.
    """
    from gqn_data.cache.directory import CacheDirectory
    from gqn_data.cache.shard_cache import default_folder
    from gqn_data.io.atomic import human_bytes

    copies = CacheDirectory(folder or default_folder(), 0)
    faults = copies.verify() if verifies else []
    removed = copies.clear() if clear and copies.files.exists() else (0, 0)
    entries = copies.entries()
    size = sum(entry.size for entry in entries)
    found: dict[str, Any] = {"folder": str(copies.folder), "files": len(entries), "bytes": size, "faults": faults}
    lines = [*faults, f"{copies.folder}: {count_of(len(entries), 'file')}, {human_bytes(size)}"]
    if clear:
        found |= {"removed_files": removed[0], "removed_bytes": removed[1]}
        lines.append(f"removed {count_of(removed[0], 'file')}, {human_bytes(removed[1])}")
    print_result(found, lines, as_json=as_json)
    if faults:
        sys.exit(FAILED)
