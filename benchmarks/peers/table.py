"""What a run of `benchmarks.peers` found, and how it is printed. Imports the names of the peers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.peers import PEERS
from benchmarks.peers.contract import Form

HEADER = f"{'':<36} {'form':<5} {'w':>2} {'peer (cores)':>15} {'ours (cores)':>15}  ours / peer (range)"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table.

    Attributes:
        peer: its key in `PEERS`.
        form: of the frames.
        workers: processes, or threads of tf.data.
        versions: of the packages that it needs.
        peer_rate: scenes/s; None where it could not be measured.
        our_rate: scenes/s of our loader in the same run.
        ratio: ours / peer: median, least, greatest.
        cores: cores that the peer and ours kept busy, consumer and all threads included.
        frames_differ: mean and greatest difference from our frames, in levels of 255.
        why_not: why it could not be measured.
    """

    peer: str
    form: Form
    workers: int
    versions: dict[str, str | None]
    peer_rate: float | None = None
    our_rate: float | None = None
    ratio: tuple[float, float, float] | None = None
    cores: tuple[float, float] | None = None
    frames_differ: tuple[float, float] | None = None
    why_not: str = ""


def _figures(result: Result) -> tuple[str, str, str]:
    """The peer's rate, ours, and the ratio; nothing where there are none."""
    if result.ratio is None or result.peer_rate is None or result.our_rate is None or result.cores is None:
        return "", "", ""
    median, low, high = result.ratio
    theirs, ours = result.cores
    rates = f"{result.peer_rate:,.0f} ({theirs:.1f})", f"{result.our_rate:,.0f} ({ours:.1f})"
    return *rates, f"{median:.1f} ({low:.1f} to {high:.1f})"


def row(result: Result) -> str:
    """A line of the printed table."""
    head = f"{PEERS[result.peer].title:<36} {result.form:<5} {result.workers:>2}"
    peer, ours, ratio = _figures(result)
    return f"{head} {peer:>15} {ours:>15}  {ratio}" if ratio else f"{head}  {result.why_not}"


def settings(results: Sequence[Result]) -> Iterator[str]:
    """What was measured: some lines a peer."""
    for title, packages, how, decodes in _facts(results):
        yield f"{title}: {packages}\n    {how}\n    {decodes}"


def as_markdown(results: Sequence[Result]) -> str:
    """The two tables of docs/loader-results.md."""
    columns = "", "form", "workers", "peer: scenes/s (cores)", "ours: scenes/s (cores)", "ours / peer"
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for result in results:
        peer, ours, ratio = _figures(result)
        cells = PEERS[result.peer].title, result.form, str(result.workers), peer, ours, ratio or result.why_not
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| peer | versions | settings | what it reads and decodes |", "|" + "---|" * 4]
    lines += [f"| {' | '.join(facts)} |" for facts in _facts(results)]
    return "\n".join(lines) + "\n"


def _facts(results: Sequence[Result]) -> Iterator[tuple[str, str, str, str]]:
    """Of each peer: title, versions, settings, what it decodes."""
    for name in dict.fromkeys(result.peer for result in results):
        peer = PEERS[name]
        versions = next(result.versions for result in results if result.peer == name)
        packages = ", ".join(f"{package} {version or '(absent)'}" for package, version in versions.items())
        decodes = "; ".join(f"{form}: {what}" for form, what in peer.decodes.items())
        yield peer.title, packages, peer.settings, decodes
