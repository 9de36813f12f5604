"""Compare conversion with one worker to a baseline per format.

Run with: python -m benchmarks.convert

Prints MB/s or frames/s of baseline and conversion, and the ratio. The two alternate. Baselines:

- zarr, webdataset: `shutil.copyfile` of the same files, plus one CRC32C pass over the copy.
- numpy: `simplejpeg.decode_jpeg` of the same frames into one preallocated buffer, without writing.
- index: one CRC32C pass over the files.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import crc32c
import numpy as np
import simplejpeg

from benchmarks.scenes import HEADER, SET, emptied, raw_rooms, row, side_by_side
from gqn_data.convert import convert
from gqn_data.convert.index import index_source_files
from gqn_data.convert.plan import Options
from gqn_data.io.atomic import on_disk
from gqn_data.sources.raw_folder import RawFolder
from gqn_data.tfrecord.example import SceneScanner
from gqn_data.tfrecord.framing import read_records

_BLOCK = 1 << 20


def copy_and_check(raw: RawFolder, to: Path) -> float:
    """Return MB/s of copying the source files and computing CRC32C of the copies."""
    started = time.perf_counter()
    for file in raw.files["train"]:
        shutil.copyfile(on_disk(file.path, "copied"), to / file.path.name)
        _compute_crc(to / file.path.name)
    return _megabytes(raw) / (time.perf_counter() - started)


def check_only(raw: RawFolder) -> float:
    """Return MB/s of computing CRC32C of the source files."""
    started = time.perf_counter()
    for file in raw.files["train"]:
        _compute_crc(on_disk(file.path, "copied"))
    return _megabytes(raw) / (time.perf_counter() - started)


def _compute_crc(path: Path) -> int:
    block, crc = bytearray(_BLOCK), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            crc = crc32c.crc32c(memoryview(block)[:count], crc)
    return crc


def _megabytes(raw: RawFolder) -> float:
    return sum(file.bytes for file in raw.files["train"]) / 1e6


def convert_all(raw: RawFolder, to: Path, name: str, limit: int | None = None) -> float:
    """Return the seconds of a conversion with all checks, checksums, flushes and the manifest."""
    options = Options(formats=(name,), workers=1, limit=limit, overwrite=True)
    started = time.perf_counter()
    convert(raw.folder, SET, to, options)
    return time.perf_counter() - started


def decode_all(raw: RawFolder, scenes: int) -> float:
    """Return frames/s of `decode_jpeg` into one buffer."""
    scanner = SceneScanner(raw.layout)
    frames: list[bytes] = []
    for file in raw.files["train"]:
        for record in read_records(file.path):
            if len(frames) == scenes * raw.layout.views:
                break
            found = scanner.scan(record, file.path)
            frames += [record.payload[at : at + length] for at, length in zip(found.offsets, found.lengths)]
    buffer = np.empty(raw.layout.frames_shape[1:], np.uint8)
    started = time.perf_counter()
    for frame in frames:
        simplejpeg.decode_jpeg(frame, "RGB", buffer=buffer)
    return len(frames) / (time.perf_counter() - started)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20_000, help="scenes to copy")
    parser.add_argument("--decoded", type=int, default=4_000, help="scenes to decode")
    parser.add_argument("--runs", type=int, default=5, help="runs per row")
    parser.add_argument("--folder", type=Path, help="keep the source files in this folder and reuse them")
    options = parser.parse_args()
    with raw_rooms(options.scenes, options.folder) as raw, tempfile.TemporaryDirectory() as scratch:
        out, copy = Path(scratch) / "out", Path(scratch) / "copy"
        count = len(raw.files["train"])
        print(f"{_megabytes(raw):,.0f} MB in {count} file{'s'[: count != 1]} of {raw.layout.views} views; medians")
        print(HEADER)
        for name in ("zarr", "webdataset"):
            figures = side_by_side(
                lambda: copy_and_check(raw, emptied(copy)),
                lambda name=name: _megabytes(raw) / convert_all(raw, emptied(out), name),  # type: ignore[misc]
                options.runs,
            )
            print(row(f"TFRecord -> {name}, copying", "MB/s", figures, 0.5))
        frames = options.decoded * raw.layout.views
        figures = side_by_side(
            lambda: decode_all(raw, options.decoded),
            lambda: frames / convert_all(raw, emptied(out), "numpy", options.decoded),
            options.runs,
        )
        print(row("TFRecord -> numpy, decoding", "frames/s", figures, 0.8))

        def index() -> float:
            started = time.perf_counter()
            index_source_files(raw, emptied(out))
            return _megabytes(raw) / (time.perf_counter() - started)

        print(row("index", "MB/s", side_by_side(lambda: check_only(raw), index, options.runs), 0.0))


if __name__ == "__main__":
    main()
