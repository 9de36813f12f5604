"""What a run is called at a service that keeps runs, and the last step sent there: a small file of the run's folder.

A training that goes on so goes on in the same run there, and what is done again is not sent twice.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from gqn_data import json_files, storage
from gqn_data.errors import GQNError


class Tracked:
    """The identity of a run at one service.

    Args:
        run: the run's folder.
        service: the service's name, part of the file's.

    Attributes:
        identity: eight letters and digits, the same as long as the file is there.
        step: the last step that was sent.
        known: whether the run was there before.
    """

    def __init__(self, run: Path, service: str) -> None:
        self._path = run / f"{service}.json"
        self.identity, self.step, self.known = secrets.token_hex(4), 0, False
        try:
            note = json_files.read_json(self._path)
            self.identity, self.step, self.known = str(note["id"]), int(note["step"]), True
        except FileNotFoundError:
            self._write()
        except (GQNError, OSError, ValueError, KeyError, TypeError):
            self._write()  # damaged: another run there is better than none

    def sent(self, step: int) -> None:
        """Notes a step that was sent."""
        if step > self.step:
            self.step = step
            self._write()

    def _write(self) -> None:
        storage.write_json(self._path, {"id": self.identity, "step": self.step})
