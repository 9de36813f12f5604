"""Results of `benchmarks.peers`, and their tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.peers import PEERS
from benchmarks.peers.contract import Form

HEADER = f"{'':<36} {'form':<5} {'w':>2} {'peer (cores)':>15} {'ours (cores)':>15}  ours / peer (range)"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the table.

    Attributes:
        peer: key in `PEERS`.
        form: form of the frames.
        workers: processes, or threads of tf.data.
        versions: versions of its packages.
        peer_rate: scenes/s; None if not measured.
        our_rate: scenes/s of our loader in the same run.
        ratio: ours / peer: median, minimum, maximum.
        cores: busy cores of the peer and of ours, with the consumer and all threads.
        frames_differ: mean and maximum difference from our frames, in levels of 255.
        why_not: reason why it was not measured.
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
    """Return the peer's rate, ours and the ratio as text; empty strings if not measured."""
    if result.ratio is None or result.peer_rate is None or result.our_rate is None or result.cores is None:
        return "", "", ""
    median, low, high = result.ratio
    theirs, ours = result.cores
    rates = f"{result.peer_rate:,.0f} ({theirs:.1f})", f"{result.our_rate:,.0f} ({ours:.1f})"
    return *rates, f"{median:.1f} ({low:.1f} to {high:.1f})"


def row(result: Result) -> str:
    """Return a row of the printed table."""
    head = f"{PEERS[result.peer].title:<36} {result.form:<5} {result.workers:>2}"
    peer, ours, ratio = _figures(result)
    return f"{head} {peer:>15} {ours:>15}  {ratio}" if ratio else f"{head}  {result.why_not}"


def settings(results: Sequence[Result]) -> Iterator[str]:
    """Yield versions, settings and decoding per peer, as text."""
    for title, packages, how, decodes in _facts(results):
        yield f"{title}: {packages}\n    {how}\n    {decodes}"


def as_markdown(results: Sequence[Result]) -> str:
    """Return the two tables of docs/loader-results.md."""
    columns = "", "form", "workers", "peer: scenes/s (cores)", "ours: scenes/s (cores)", "ours / peer"
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for result in results:
        peer, ours, ratio = _figures(result)
        cells = PEERS[result.peer].title, result.form, str(result.workers), peer, ours, ratio or result.why_not
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| peer | versions | settings | reads and decodes |", "|" + "---|" * 4]
    lines += [f"| {' | '.join(facts)} |" for facts in _facts(results)]
    return "\n".join(lines) + "\n"


def _facts(results: Sequence[Result]) -> Iterator[tuple[str, str, str, str]]:
    """Yield title, versions, settings and decoding per peer."""
    for name in dict.fromkeys(result.peer for result in results):
        peer = PEERS[name]
        versions = next(result.versions for result in results if result.peer == name)
        packages = ", ".join(f"{package} {version or '(not installed)'}" for package, version in versions.items())
        decodes = "; ".join(f"{form}: {what}" for form, what in peer.decodes.items())
        yield peer.title, packages, peer.settings, decodes
