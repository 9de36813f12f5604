"""How tests of faults say how often they tried, and how often what must hold held.

`make faults` runs every test that asks for the fixture `faults` (see conftest.py) and makes the table of
docs/reliability.md of what they record. Any test folder may use it.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

TRIES = "GQN_FAULT_TRIES"
REPORT = "GQN_FAULT_REPORT"


@dataclass(frozen=True)
class FaultCounts:
    """What the fixture `faults` gives to a test; `node` is the test's name as pytest has it."""

    node: str

    def tries(self, quick, full=20):
        """How often to try: `quick` in `make test`, `full` in `make faults` (GQN_FAULT_TRIES: "full", or a number)."""
        wanted = os.environ.get(TRIES, "")
        if wanted == "full":
            return full
        return int(wanted) if wanted else quick

    def record(self, fault, *, holds, tries, survived):
        """Notes a row of the table, and fails the test where something did not survive.

        Args:
            fault: "kind: what", such as "killed: convert, local"; rows of one name are added up.
            holds: what must hold, in a user's words.
            tries: how often it was tried.
            survived: how often it held.
        """
        path = os.environ.get(REPORT)
        if path:
            row = {"fault": fault, "holds": holds, "tries": tries, "survived": survived, "test": self.node}
            line = json.dumps(row, ensure_ascii=False) + "\n"
            # One write to a file opened for appending: the workers of pytest-xdist do not mix their lines.
            handle = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        assert tries > 0, f"{fault}: never tried"
        assert survived == tries, f"{fault}: {tries - survived} of {tries} did not survive"
