"""Scenes/s of our loader and of its peers, from files on the disk to batches, in turns.

Run with: python -m benchmarks.peers

Every peer has a process of its own, and so has ours; while one is timed, the other stands still. A peer is measured
with the interpreter that runs this, or with the one that is named for it:

    python -m benchmarks.peers --python tf-data=/path/to/bin/python --python grain=/path/to/bin/python

Batches of 36 scenes, six of 15 views, are the same for all; what each gives is checked against the dataset before it
is timed. Files are read right after they are written, so they come from memory, not from the disk.
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
_FORMS: dict[Form, str] = {"jpeg": "zarr", "raw": "numpy"}  # and our container of each
_PATIENCE = 5.0  # seconds that a process may take to end


class PeerFailed(Exception):
    """A peer's process says that something went wrong, or says nothing any more."""


class Process:
    """A peer in a process of its own (`benchmarks.peers.measure`).

    Args:
        python: the interpreter.
        name: of the peer.
        form: of the frames.
        source: our dataset of that form.
        folder: for the peer's files.
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
        """What the process answers.

        Raises:
            PeerFailed: an error, or the end of the process.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise PeerFailed(f"its process ended: {self._log.read()[-500:].decode(errors='replace').strip()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer["answer"]

    def end(self) -> None:
        """Ends the process and all that it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


def measure(
    name: str, form: Form, peer: Process, our: Process, *, counts: Sequence[int], seconds: float, least: int, runs: int
) -> Iterator[Result]:
    """A peer beside ours, for each number of workers."""
    versions = peer.ask("versions")
    absent = [package for package, version in versions.items() if version is None]
    if absent:
        why = f"not installed: pip install {' '.join(absent)}"
        yield from (Result(peer=name, form=form, workers=workers, versions=versions, why_not=why) for workers in counts)
        return
    try:
        peer.ask("write")
        os.sync()  # what is still to be written would be, while others are timed
    except PeerFailed as failure:
        why = f"failed to write its files: {failure}"
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
            frames_differ=(differ["mean"], differ["most"]),
        )


def _interpreters(given: Sequence[str]) -> dict[str, str]:
    chosen = dict.fromkeys(PEERS, sys.executable)
    for word in given:
        name, _, path = word.partition("=")
        if name not in PEERS or not path:
            raise SystemExit(f"--python {word}: expected PEER=/path/to/python, PEER of {', '.join(PEERS)}")
        chosen[name] = path
    return chosen


def main() -> None:
    others = [name for name in PEERS if name != OURS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", action="append", choices=others, help="only this one; may be given again")
    parser.add_argument("--form", action="append", choices=get_args(Form), help="only this one")
    parser.add_argument("--workers", action="append", type=int, help="so many only; 1 and 2 otherwise")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PYTHON", help="interpreter of a peer")
    parser.add_argument("--scenes", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one timed piece")
    parser.add_argument("--least", type=int, default=15, help="batches of one timed piece")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the scenes here, for another run")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--markdown", type=Path, help="write the tables of docs/loader-results.md here, too")
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
            with contextlib.ExitStack() as ending:
                our = Process(pythons[OURS], OURS, form, source, source)
                ending.callback(our.end)
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
    print(f"\n{seconds:.0f} s in all\n")
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
