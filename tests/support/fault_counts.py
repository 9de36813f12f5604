"""Recording of fault tests: how often a fault was tried, and how often the guarantee held.

`make faults` runs every test that uses the fixture `faults` (see conftest.py), and writes the table in
docs/reliability.md from their records.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

TRIES = "GQN_FAULT_TRIES"
REPORT = "GQN_FAULT_REPORT"


@dataclass(frozen=True)
class FaultCounts:
    """Value of the fixture `faults`.

    Attributes:
        node: node id of the test in pytest.
    """

    node: str

    def tries(self, quick, full=20):
        """Return the number of tries: `quick` in `make test`, `full` in `make faults`.

        The variable GQN_FAULT_TRIES overrides it: "full" or a number.
        """
        wanted = os.environ.get(TRIES, "")
        if wanted == "full":
            return full
        return int(wanted) if wanted else quick

    def record(self, fault, *, holds, tries, survived):
        """Record a row of the table, and fail the test unless the guarantee held in every try.

        Args:
            fault: "kind: what", such as "killed: convert, local". Rows of one name are summed.
            holds: guarantee, in a user's words.
            tries: number of tries.
            survived: number of tries in which the guarantee held.
        """
        path = os.environ.get(REPORT)
        if path:
            row = {"fault": fault, "holds": holds, "tries": tries, "survived": survived, "test": self.node}
            line = json.dumps(row, ensure_ascii=False) + "\n"
            # A single write in append mode keeps the lines of the workers of pytest-xdist apart.
            handle = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        assert tries > 0, f"{fault}: never tried"
        assert survived == tries, f"{fault}: {tries - survived} of {tries} did not survive"
