"""Measure scenes/s of our loader and of its peers, from files on the disk to batches.

Run with: python -m benchmarks.peers

Every peer and our loader run in separate processes; while one is timed, the other is idle. A peer runs with the current
interpreter, or with the one given for it:

    python -m benchmarks.peers --python tf-data=/path/to/bin/python --python grain=/path/to/bin/python

Batches of 36 scenes, six of 15 views, are the same for all. Batches of each peer are checked against the dataset before
it is timed. Files are read right after they are written, so they come from the page cache.

Prints per peer, form and number of workers: scenes/s and busy cores of the peer and of ours, and the ratio; then the
versions and settings of the peers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks.peers import OURS, PEERS
from benchmarks.peers.contract import BATCH, VIEWS, Form
from benchmarks.peers.table import HEADER, Result, as_markdown, row, settings
from benchmarks.scenes import raw_scenes, side_by_side
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.schema.catalog import find_scene_set

_SET = find_scene_set("shepard_metzler_5_parts")
_ROOT = Path(__file__).resolve().parents[2]
_FORMS: dict[Form, str] = {"jpeg": "zarr", "raw": "numpy"}  # our format for each form
_TIMEOUT = 5.0  # seconds for a process to exit


class PeerFailed(Exception):
    """A peer's process reported an error or died."""


class Process:
    """A peer in a separate process (`benchmarks.peers.measure`).

    Args:
        python: interpreter of the process.
        name: name of the peer.
        form: form of the frames.
        source: our dataset in that form.
        folder: folder for the peer's files.
    """

    def __init__(self, python: str, name: str, form: Form, source: Path, folder: Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.measure", name, form, str(source), str(folder)],
            cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": str(_ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "DO_NOT_TRACK": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            text=True,
        )

    def ask(self, command: str, **arguments: Any) -> Any:
        """Send a command to the process and return its answer.

        Raises:
            PeerFailed: the process reported an error or died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise PeerFailed(f"process died: {self._log.read()[-500:].decode(errors='replace').strip()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer["answer"]

    def end(self) -> None:
        """End the process and all its child processes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_TIMEOUT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


def measure(
    name: str, form: Form, peer: Process, our: Process, *, counts: Sequence[int], seconds: float, least: int, runs: int
) -> Iterator[Result]:
    """Measure a peer and ours; yield a result per number of workers."""
    versions = peer.ask("versions")
    missing = [package for package, version in versions.items() if version is None]
    if missing:
        why = f"not installed: pip install {' '.join(missing)}"
        yield from (Result(peer=name, form=form, workers=workers, versions=versions, why_not=why) for workers in counts)
        return
    try:
        peer.ask("write")
        os.sync()  # otherwise dirty pages would be written while others are timed
    except PeerFailed as failure:
        why = f"cannot write its files: {failure}"
        yield from (Result(peer=name, form=form, workers=workers, versions=versions, why_not=why) for workers in counts)
        return
    for workers in counts:
        asked = {"workers": workers, "seconds": seconds, "least": least}
        try:
            differ = peer.ask("open", workers=workers)
            cores: dict[Process, list[float]] = {peer: [], our: []}

            def rate(process: Process, asked: dict[str, Any] = asked, cores: Any = cores) -> float:
                measured = process.ask("rate", **asked)
                cores[process].append(measured["cores"])
                return float(measured["scenes"])

            figures = side_by_side(lambda rate=rate: rate(peer), lambda rate=rate: rate(our), runs)  # type: ignore[misc]
            peer.ask("close", workers=workers)
        except PeerFailed as failure:
            yield Result(peer=name, form=form, workers=workers, versions=versions, why_not=f"failed: {failure}")
            continue
        yield Result(
            peer=name,
            form=form,
            workers=workers,
            versions=versions,
            peer_rate=figures[0],
            our_rate=figures[1],
            ratio=figures[2:],
            cores=(statistics.median(cores[peer]), statistics.median(cores[our])),
            frames_differ=(differ["mean"], differ["max"]),
        )


def _interpreters(options: Sequence[str]) -> dict[str, str]:
    """Return the interpreter of each peer."""
    chosen = dict.fromkeys(PEERS, sys.executable)
    for word in options:
        name, _, path = word.partition("=")
        if name not in PEERS or not path:
            raise SystemExit(f"--python {word}: expected PEER=/path/to/python with PEER one of {', '.join(PEERS)}")
        chosen[name] = path
    return chosen


def main() -> None:
    """Run the benchmark and print its table."""
    others = [name for name in PEERS if name != OURS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", action="append", choices=others, help="measure only this peer; repeatable")
    parser.add_argument("--form", action="append", choices=get_args(Form), help="measure only this form; repeatable")
    parser.add_argument("--workers", action="append", type=int, help="number of workers; repeatable; default: 1 and 2")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PEER=PYTHON", help="interpreter of a peer; repeatable"
    )
    parser.add_argument("--scenes", type=int, default=5000, help="scenes in the dataset")
    parser.add_argument("--seconds", type=float, default=1.0, help="minimum duration of one measurement")
    parser.add_argument("--least", type=int, default=15, help="minimum number of batches per measurement")
    parser.add_argument("--runs", type=int, default=3, help="measurements per row")
    parser.add_argument("--folder", type=Path, help="keep the scenes in this folder and reuse them")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--markdown", type=Path, help="also write the tables of docs/loader-results.md to this file")
    options = parser.parse_args()
    pythons = _interpreters(options.python)
    counts = options.workers or [1, 2]
    if options.scenes < 4 * BATCH * max(counts):
        raise SystemExit(f"--scenes {options.scenes}: expected {4 * BATCH * max(counts)} or more")
    begin = time.monotonic()
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as made, raw_scenes(_SET, options.scenes, options.folder) as raw:
        root = Path(made)
        forms = options.form or list(_FORMS)
        convert(raw.folder, _SET, root, Options(formats=tuple(_FORMS[form] for form in forms), workers=1))
        views = raw.layout.views
        print(f"{options.scenes:,} scenes of {_SET.name}, batches of {BATCH}, {VIEWS} of {views} views; scenes/s")
        print(HEADER, flush=True)
        for form in forms:
            source = root / _FORMS[form] / _SET.name
            with contextlib.ExitStack() as cleanup:
                our = Process(pythons[OURS], OURS, form, source, source)
                cleanup.callback(our.end)
                for workers in counts:
                    our.ask("open", workers=workers)
                for name in options.peer or others:
                    folder = root / "peer"
                    folder.mkdir()
                    peer = Process(pythons[name], name, form, source, folder)
                    try:
                        asked = {"seconds": options.seconds, "least": options.least, "runs": options.runs}
                        for result in measure(name, form, peer, our, counts=counts, **asked):
                            results.append(result)
                            print(row(result), flush=True)
                    finally:
                        peer.end()
                        shutil.rmtree(folder)
    seconds = time.monotonic() - begin
    print(f"\n{seconds:.0f} s in total\n")
    print("\n".join(settings(results)))
    if options.markdown:
        options.markdown.write_text(as_markdown(results))
    if options.json:
        facts: dict[str, Any] = {
            "python": platform.python_version(),
            "machine": platform.platform(),
            "cores": os.cpu_count(),
        }
        facts |= {"scenes": options.scenes, "batch": BATCH, "views": VIEWS, "seconds": seconds, "load": os.getloadavg()}
        content = {**facts, "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
