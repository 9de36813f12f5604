"""Files made to exhaust memory or time, or to take control: each is refused with an error, within limits.

hostile_cases.py has the cases. They run in a process limited to a few hundred megabytes; a case that takes more, or
does not end, fails here by name.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_cases
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")


def run_cases(names, folder):
    """Return the outcome of each case; after a case that ends its process, the rest run in another one."""
    found = {}
    left = list(names)
    # One arena: every thread would reserve 64 MiB of addresses, which count towards the limit.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        "MALLOC_ARENA_MAX": "1",
    }
    while left:
        place = folder / str(len(left))
        place.mkdir()
        done = subprocess.run(
            [sys.executable, hostile_cases.__file__, place],
            input=json.dumps(left),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        begun = None
        for line in done.stdout.splitlines():
            row = json.loads(line)
            begun = row.get("begins", begun)
            if "case" in row:
                found[row["case"]] = row
        if begun is None:
            raise AssertionError(f"no case was run: {done.stderr}")
        if begun not in found:
            found[begun] = {"refused": False, "kind": f"exit {done.returncode}", "said": done.stderr[-300:]}
        left = [name for name in left if name not in found]
    return found


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return run_cases(hostile_cases.CASES, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("group", dict.fromkeys(name.split(":")[0] for name in hostile_cases.CASES))
def test_hostile_input_is_refused_within_limits_of_memory_and_time(group, outcome, faults):
    rows = {name: row for name, row in outcome.items() if name.split(":")[0] == group}
    wrong = [f"{name}: {row['kind']}: {row['said']}" for name, row in rows.items() if not row["refused"]]
    assert not wrong, "\n".join(wrong)
    unclear = [f"{name}: {row['said']!r}" for name, row in rows.items() if not row["said"] or "\n" in row["said"]]
    assert not unclear, "\n".join(unclear)
    faults.record(
        f"hostile input: {group}",
        holds=f"refused with a message, within {hostile_cases.MEMORY >> 20} MiB of memory",
        tries=len(rows),
        survived=len(rows) - len(wrong),
    )
