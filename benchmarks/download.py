"""Compare `gqn-data download` with `curl`, from a server on this machine.

Run with: python -m benchmarks.download

Prints MB/s of both and the ratio, for 1 and 4 connections, with and without fsync after `curl`. The two alternate.
The server is a separate process that uses `sendfile` and sends CRC32C like Google Cloud Storage. `curl` only writes
the files. `download` also computes CRC32C of each file, checks both checksums of each record, and flushes each file
before it is renamed.
"""

from __future__ import annotations

import argparse
import base64
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import crc32c

from benchmarks.scenes import HEADER, SET, emptied, raw_rooms, row, side_by_side
from gqn_data.download import download
from gqn_data.sources.raw_folder import RawFolder


class _Handler(BaseHTTPRequestHandler):
    """Serve whole files only; without faults, ranges are not requested."""

    protocol_version = "HTTP/1.1"
    folder = Path()
    checksums: dict[str, str] = {}  # noqa: RUF012  set once, before the server starts

    def log_message(self, *_: object) -> None:
        """Suppress the log of requests."""

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        name = self._head()
        if name is not None:
            with (self.folder / name).open("rb") as file:
                self.wfile.flush()
                self.connection.sendfile(file)

    def _head(self) -> str | None:
        name = self.path.lstrip("/")
        if name not in self.checksums:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(200)
        self.send_header("Content-Length", str((self.folder / name).stat().st_size))
        self.send_header("ETag", f'"{self.checksums[name]}"')
        self.send_header("x-goog-hash", f"crc32c={self.checksums[name]}")
        self.end_headers()
        return name


def serve(folder: Path) -> None:
    """Serve every file below a folder, and print the port."""
    _Handler.folder = folder
    for path in folder.rglob("*"):
        if path.is_file():
            crc = crc32c.crc32c(path.read_bytes())
            _Handler.checksums[path.relative_to(folder).as_posix()] = base64.b64encode(crc.to_bytes(4, "big")).decode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Start a server of a folder, and yield its URL."""
    command = [sys.executable, "-m", "benchmarks.download", "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def _megabytes(raw: RawFolder) -> float:
    return sum(file.bytes for file in raw.files["train"]) / 1e6


def by_curl(raw: RawFolder, url: str, to: Path, at_once: int, *, synced: bool) -> float:
    """Return MB/s of `curl`, followed by fsync of each file if `synced`."""
    words = ["curl", "--no-progress-meter", "--fail", "--parallel", "--parallel-max", str(at_once)]
    for file in raw.files["train"]:
        words += ["--output", str(to / Path(file.name).name), f"{url}/{SET.name}/{file.name}"]
    started = time.perf_counter()
    subprocess.run(words, check=True)
    if synced:
        for path in to.iterdir():
            with path.open("rb") as opened:
                os.fsync(opened.fileno())
    return _megabytes(raw) / (time.perf_counter() - started)


def by_us(raw: RawFolder, url: str, to: Path, at_once: int) -> float:
    """Return MB/s of `gqn-data download` with all checks."""
    numbers = range(1, len(raw.files["train"]) + 1)
    started = time.perf_counter()
    report = download(SET, to, split="train", files=numbers, workers=at_once, base_url=url)
    seconds = time.perf_counter() - started
    assert report.bytes == sum(file.bytes for file in raw.files["train"])
    return _megabytes(raw) / seconds


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=40_000, help="scenes to fetch, 5000 per file")
    parser.add_argument("--runs", type=int, default=5, help="runs per row")
    parser.add_argument("--folder", type=Path, help="keep the source files in this folder and reuse them")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with raw_rooms(options.scenes, options.folder) as raw, tempfile.TemporaryDirectory() as scratch:
        to = Path(scratch) / "to"
        assert isinstance(raw.folder, Path)
        count = len(raw.files["train"])
        print(f"{_megabytes(raw):,.0f} MB in {count} file{'s'[: count != 1]}; medians")
        print(HEADER)
        with served(raw.folder.parent) as url:
            for at_once in (1, 4):
                for synced in (False, True):
                    figures = side_by_side(
                        lambda: by_curl(raw, url, emptied(to), at_once, synced=synced),  # noqa: B023
                        lambda: by_us(raw, url, emptied(to), at_once),  # noqa: B023
                        options.runs,
                    )
                    yardstick = "curl and fsync" if synced else "curl"
                    name = f"{at_once} at once, against {yardstick}"
                    print(row(name, "MB/s", figures, 0.0 if synced else 0.7), flush=True)


if __name__ == "__main__":
    main()
