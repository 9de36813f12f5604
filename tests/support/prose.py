"""Measures of the prose: retired phrases, docstrings that begin with no verb, words a sentence in the docs.

python tests/support/prose.py                   # the whole project
python tests/support/prose.py gqn_data/io -v    # one part, with every finding
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("gqn_data", "gqn_model", "cli.py", "examples", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs")

# Phrases that a reader has to decode, each with a plainer one. `(?<![-\w])` and `(?![-\w])` are added.
RETIRED = {
    r"tells?|told|telling": "say, report, show, distinguish",
    r"that which|those that|those which|those who|that of": "the one that, the ones that; name the thing",
    r"(?:is|are|was|were|has|have|had|be|knows?|finds?) (?-i:no|none|nothing|nobody)": "is not, does not, cannot",
    r"where (?:not|none|nothing|nobody|it is not|there is none|there are none)": "if not, otherwise",
    r"returns where|returns if|returns unless": "Raise if, Raise unless",
    r"anew|again and again": "again, from the start",
    r"go(?:es)? on|going on|went on": "continue, resume",
    r"alone": "only, by itself",
    r"so many|so much|so-manieth": "N, this many",
    r"of (?:its|their|his|one's|my|your) own": "own, separate",
    r"whoever|whatever|whichever|wherever|however often": "anyone, any",
    r"what is (?:whole|there|here|left|wanted|read|written|asked)": "name the thing",
    r"for ever|somebody|nobody|of which|by itself|upon": "forever, someone, no one",
    r"as it stands|as it is|as they are|as they stand": "unchanged",
    r"lets? go of|comes? to|is to be|are to be|was to be": "release; must be",
}
_PATTERNS = [(re.compile(rf"(?<![-\w])(?:{phrase})(?![-\w])", re.I), better) for phrase, better in RETIRED.items()]

# First words of docstrings: imperatives that this project uses.
VERBS = frozenset(
    """
    abort accept accumulate acquire add adjust advance advise aggregate align allocate allow alternate annotate
    announce append apply ask assemble assert assign attach autocast average await backpropagate balance batch
    begin benchmark bind block break broadcast build bundle cache calculate call cancel capture cast catch centre
    change check choose claim clamp classify clean clear click clip clone close collate collect combine commit
    compare compile complete compose compress compute concatenate configure confirm connect consume continue
    convert convolve copy count cover create crop cut cycle decide declare decode decorate defer define delete deliver
    derive describe detach detect determine disable discard discover dispatch display divide do double download
    draw drop dump embed emit empty enable encode end enforce ensure enter enumerate erase estimate evaluate evict
    exchange execute exit expand expect explain export expose extend extract fail fetch fill filter find finish
    fit fix flag flatten flip flush fold follow forbid force forget fork format forward free gather generate get
    give go group guard guess halve hand handle hash hide hold identify ignore import include increase increment
    index infer inform initialise initialize insert inspect install integrate interpolate interpret interrupt
    intersect invert invoke issue iterate join keep kill label launch lay leave let limit link list listen load
    locate lock log look lower make map mark mask match materialise materialize measure memory-map merge migrate
    mirror mix move multiply name narrow normalise normalize note notify number observe obtain offer open optimise
    order override overwrite pack pad parse partition pass pause perform permute pick pin place plan play plot
    point poll pool populate post predict prefetch prepare prepend preserve prevent print probe process produce
    project propagate protect prove provide prune publish pull push put quantise query queue quote raise randomise
    rank ray-cast reach read rebuild receive recompute record reduce refetch refill refresh refuse register reject
    release reload remember remove rename render reopen reorder repeat replace replay reply report represent
    request require rerun resample rescale reserve reset reshape resize resolve respond restore restrict resume
    retry return reuse reverse rewind rewrite rotate round run sample satisfy save say scale scan schedule score
    search seed seek select send separate serialise serialize serve set settle shard share shift show shrink
    shuffle shut sign signal simplify skip sleep slice smooth solve sort spawn specify split spread stack start
    state stop store stream strip sub-sample submit subscribe subtract suggest sum summarise summarize supply
    support suppress swap switch sync synchronise synchronize take tear test throw tie time toggle touch trace
    track train transform translate transpose traverse treat trigger trim truncate try tune turn unfold unlink unpack
    unpin unregister unwrap update upload upsample use validate verify view visit wait walk warm warn watch weigh
    widen withdraw wrap write yield zip
    """.split()  # noqa: SIM905  a column of 350 lines is no easier to read
)


# Python 3.12 and newer split f-strings into tokens.
_TEXT = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


class Finding(NamedTuple):
    """One place in the text."""

    path: Path
    line: int
    text: str
    better: str


class Docstring(NamedTuple):
    """The docstring of a function or method."""

    path: Path
    line: int
    name: str
    text: str


def files_of(parts: tuple[str, ...] = PARTS) -> list[Path]:
    """Return the Python and Markdown files below `parts`, sorted."""
    found: list[Path] = []
    for part in parts:
        path = ROOT / part
        found += [path] if path.is_file() else sorted([*path.rglob("*.py"), *path.rglob("*.md")])
    return found


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every comment, string and paragraph; code in Markdown is left out."""
    source = path.read_text()
    if path.suffix == ".md":
        yield from _paragraphs(source)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _TEXT:
            yield token.start[0], token.string


def _paragraphs(source: str) -> Iterator[tuple[int, str]]:
    text = re.sub(r"^(```|~~~).*?^\1", lambda code: "\n" * code.group().count("\n"), source, flags=re.M | re.S)
    for number, line in enumerate(text.splitlines(), 1):
        yield number, re.sub(r"`[^`]*`", "CODE", line)


def retired(files: list[Path]) -> list[Finding]:
    """Return every retired phrase in the prose of `files`."""
    found = []
    for path in files:
        for first, text in prose_of(path):
            flat = re.sub(r"\n\s*", " ", text)
            for pattern, better in _PATTERNS:
                for match in pattern.finditer(flat):
                    around = flat[max(0, match.start() - 40) : match.end() + 30]
                    # The flattened text has lost its lines; count those before the match in the original.
                    line = first + text[: text.find(match.group().split()[0], 0)].count("\n")
                    found.append(Finding(path, line, around, better))
    return found


def docstrings(files: list[Path]) -> list[Docstring]:
    """Return the docstrings of all functions and methods in `files`, without properties."""
    found = []
    for path in files:
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
                if any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
                    continue
                found.append(Docstring(path, node.lineno, node.name, text))
    return found


def without_verb(found: list[Docstring]) -> list[Docstring]:
    """Return the docstrings whose first word is not an imperative."""
    return [one for one in found if re.split(r"[\s,.:;]", one.text, maxsplit=1)[0].lower() not in VERBS]


def words_a_sentence(files: list[Path]) -> float:
    """Return the mean number of words in a sentence of the Markdown among `files`; tables and headings are left out."""
    sentences: list[int] = []
    for path in files:
        if path.suffix != ".md":
            continue
        lines = [line for _, line in _paragraphs(path.read_text())]
        blocks = re.split(r"\n\s*\n|\n(?=\s*[-*] |\s*\d+\. )", "\n".join(lines))
        for block in blocks:
            if block.lstrip().startswith(("#", "|", "!", "<")):
                continue
            for sentence in re.split(r"(?<=[.!?])\s+", " ".join(block.split())):
                words = re.findall(r"[A-Za-z0-9'-]+", sentence)
                if len(words) > 1:
                    sentences.append(len(words))
    return sum(sentences) / len(sentences) if sentences else 0.0


def main() -> None:
    """Print the measures of the parts that the command line names."""
    parts = tuple(word for word in sys.argv[1:] if word != "-v") or PARTS
    files = files_of(parts)
    found, all_docstrings = retired(files), docstrings(files)
    bare = without_verb(all_docstrings)
    if "-v" in sys.argv:
        for one in found:
            print(f"{one.path.relative_to(ROOT)}:{one.line}: ...{one.text}... -> {one.better}")
        for one in bare:
            print(f"{one.path.relative_to(ROOT)}:{one.line}: {one.name}: {one.text.splitlines()[0]}")
    print(f"retired phrases               {len(found)}")
    share = 100 * len(bare) / max(1, len(all_docstrings))
    print(f"docstrings without a verb     {len(bare)} of {len(all_docstrings)}, {share:.1f} %")
    print(f"words a sentence in the docs  {words_a_sentence(files):.1f}")


if __name__ == "__main__":
    main()
