"""Run all fault tests at their full counts, and write the table of docs/reliability.md: `make faults`.

    python tests/faults/report.py [-n WORKERS]

The tests record what they tried (see fault_counts.py). The table contains neither machine, time nor speed, and is
written only if every test passed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by `make faults`: begin -->\n", "<!-- made by `make faults`: end -->\n"
FUZZ_EXAMPLES = 5000

# In the order of the table; others follow by name.
KINDS = ("flipped bits", "bad server", "killed", "full disk", "two at once", "hostile input", "fuzz")


def rows_of(lines):
    """Return the rows of the table: (fault, what must hold, tries, survived, file of the test)."""
    found = {}
    for line in lines:
        note = json.loads(line)
        row = found.setdefault(note["fault"], [note["holds"], 0, 0, note["test"].split("::")[0]])
        row[1] += note["tries"]
        row[2] += note["survived"]

    def rank(fault):
        kind = fault.split(":")[0]
        return (KINDS.index(kind) if kind in KINDS else len(KINDS), fault)

    return [(fault, *found[fault]) for fault in sorted(found, key=rank)]


def table(rows):
    """Format the rows as Markdown, one section per kind with its sum."""
    out = []
    kinds = list(dict.fromkeys(row[0].split(":")[0] for row in rows))
    for kind in kinds:
        part = [row for row in rows if row[0].split(":")[0] == kind]
        tries, survived = sum(row[2] for row in part), sum(row[3] for row in part)
        # A condition that all rows share is stated once.
        common = part[0][1] if len({row[1] for row in part}) == 1 else ""
        out.append(f"**{kind[:1].upper()}{kind[1:]}**: {tries:,} tries, {survived:,} survived")
        out += [f"What must hold: {common}.\n"] if common else [""]
        column, line = ("", "") if common else (" what must hold |", "---|")
        out += [f"| fault |{column} tries | survived | test |", f"|---|{line}---:|---:|---|"]
        for fault, holds, count, good, test in part:
            name = fault.partition(": ")[2] or fault
            cell = "" if common else f" {holds} |"
            out.append(f"| {name} |{cell} {count:,} | {good:,} | {test.removeprefix('tests/')} |")
        out.append("")
    return "\n".join(out)


def with_table(page, text):
    """Return the page with the table between its two marks."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"{PAGE}: the marks of the table are missing, expected {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-n", default="2", help="processes that run tests")
    workers = parser.parse_args().n
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes.jsonl"
        environment = {
            **os.environ,
            "GQN_FAULT_TRIES": "full",
            "GQN_FAULT_REPORT": str(notes),
            "GQN_FUZZ_EXAMPLES": os.environ.get("GQN_FUZZ_EXAMPLES", str(FUZZ_EXAMPLES)),
        }
        command = [sys.executable, "-m", "pytest", "-m", "fault", "-n", workers, "--dist", "worksteal"]
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if status:
            raise SystemExit(status)
        text = table(rows_of(notes.read_text().splitlines()))
    PAGE.write_text(with_table(PAGE.read_text(), text))
    print(text)


if __name__ == "__main__":
    main()
