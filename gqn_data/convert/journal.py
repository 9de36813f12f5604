"""The work folder of a conversion: which shards are done, so that a run that was cut off can go on.

It holds the plan, and a marker with the manifest's row for every shard that is whole. What another plan left in
the destination is known from its own plan, and removed. Imports `json_files`, `manifest`, `plan`, `storage`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gqn_data.convert.plan import Plan, identity
from gqn_data.errors import DestinationError, ManifestError
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath
from gqn_data.schema.catalog import Split
from gqn_data.schema.manifest import (
    CHECKSUM_FILE,
    DESCRIPTION_FILES,
    MANIFEST_FILE,
    FileRow,
    ShardRow,
    parse_shard,
    read_manifest,
)

_PLAN_FILE = "plan.json"

# The shards of a plan that are whole, by split and number.
Done = dict[tuple[Split, int], ShardRow]


@dataclass(frozen=True, kw_only=True)
class RunToken:
    """Tells a worker whether the run that sent it is still the one that writes the dataset.

    A worker of a cluster outlives a client that was killed, and a run with another plan may have begun meanwhile.

    Attributes:
        note: the file in which the run noted its plan.
        sha256: of that file.
    """

    note: AnyPath
    sha256: str

    def check(self) -> None:
        """Returns where the plan is still that.

        Raises:
            DestinationError: it is another, or none.
        """
        try:
            found = atomic.sha256_of(self.note)
        except FileNotFoundError:
            found = ""
        if found != self.sha256:
            raise DestinationError(f"{self.note}: the run that this shard was for is over; the shard is not written")


class WorkFolder:
    """The work folder of one container of a conversion.

    Args:
        folder: may be absent.
    """

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder

    def begin(self, plan: Plan, *, overwrite: bool, tidy: bool = True) -> Done:
        """Makes the destination ready for a plan: what is done of it stays, what is of another plan goes.

        From here until the manifest is written anew the destination is no dataset.

        Args:
            plan: what will be written.
            overwrite: remove a dataset that is there, whatever it is.
            tidy: remove temporary files, which are of killed runs.
        """
        atomic.make_folder(plan.folder)
        if tidy:
            atomic.remove_temporaries(plan.folder)
        if (plan.folder / MANIFEST_FILE).exists():
            self._open_again(plan, keep=not overwrite)
        noted = self._read(_PLAN_FILE)
        this = identity(plan.manifest)
        if noted is not None and noted.get("identity") != this:
            self._forget(plan.folder, noted)
            noted = None
        if noted is None:
            self._note(this, plan.names())
        return self._done(plan.places)

    def begin_part(self, plan: Plan, places: Sequence[ShardLocation]) -> Done:
        """Makes the destination ready for a part of a plan, beside which other parts may be at work.

        The first one readies it as `begin` does; temporary files stay, for they may be the others'.

        Args:
            plan: of all parts.
            places: the shards of this part.

        Raises:
            DestinationError: another plan is noted; parts take nothing away that others made.
        """
        this = identity(plan.manifest)
        noted = self._read(_PLAN_FILE) or {}
        other = noted.get("identity")
        if other is not None and other != this:
            raise DestinationError(
                f"{plan.folder}: another conversion is under way there, of other source files or with other options; "
                f"give all parts the same; to give that one up, remove {plan.folder} and {self._folder}"
            )
        if other is None or (plan.folder / MANIFEST_FILE).exists():
            self.begin(plan, overwrite=False, tidy=False)
        return self._done(places)

    def shards_done(self) -> int:
        """How many shards are noted as whole, by all parts."""
        return sum(name.endswith(".json") and name != _PLAN_FILE for name in atomic.list_names(self._folder))

    def _done(self, places: Sequence[ShardLocation]) -> Done:
        done = {(place.split, place.number): self.row_of(place) for place in places}
        return {key: row for key, row in done.items() if row is not None}

    def begin_unplanned(self, folder: AnyPath, this: dict[str, Any]) -> None:
        """Makes the destination ready for a conversion whose plan becomes known only while it is under way.

        Args:
            folder: of the dataset to be; what is there and is not of this conversion goes.
            this: what makes two such conversions the same; JSON values.
        """
        atomic.make_folder(folder)
        atomic.remove_temporaries(folder)
        if (folder / MANIFEST_FILE).exists():
            files: list[str] = []
            with contextlib.suppress(ManifestError):
                files = [row.name for row in read_manifest(folder).all_files()]
            self._note(None, files)
            self._withdraw(folder)
        noted = self._read(_PLAN_FILE)
        if noted is not None and noted.get("identity") != this:
            self._forget(folder, noted)
            noted = None
        if noted is None:
            self._note(this, [])

    def _forget(self, folder: AnyPath, noted: dict[str, Any]) -> None:
        """Removes what another plan left in the destination, and all that was noted of it."""
        _remove_files(folder, noted.get("files"))
        for name in atomic.list_names(self._folder):
            marker = self._read(name) or {}
            _remove_files(folder, marker.get("begun"))
            with contextlib.suppress(KeyError, TypeError):
                _remove_files(folder, [row.name for row in parse_shard(marker).files])
        atomic.remove_folder(self._folder)

    def abandon(self, folder: AnyPath) -> None:
        """Removes what this conversion left in the destination, and all that was noted of it."""
        self._forget(folder, self._read(_PLAN_FILE) or {})

    def row_of(self, place: ShardLocation) -> ShardRow | None:
        """The manifest's row of a shard that is whole; None where it is to be made."""
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # no marker of ours: the shard is made anew
            row = parse_shard(self._read(self._marker(place)) or {})
            if row.scenes == place.scenes and all(is_there(place.folder, file) for file in row.files):
                return row
        return None

    def begin_shard(self, place: ShardLocation, names: tuple[str, ...]) -> None:
        """Notes the files of a shard before they are written, where no plan names them."""
        strict_json.write_note(self._folder / self._marker(place), {"begun": list(names)})

    def _open_again(self, plan: Plan, *, keep: bool) -> None:
        """Turns a dataset into work that is done in part: all of it, or none if it is to be replaced."""
        files: list[str] = []
        with contextlib.suppress(ManifestError):
            manifest = read_manifest(plan.folder)
            files = [row.name for row in manifest.all_files()]
            if keep:
                self._note(identity(plan.manifest), plan.names())
                for place in plan.places:
                    self.mark(place, manifest.splits[place.split].shards[place.number])
        if not keep:
            # Noted before anything is removed: a run cut off here finds in this plan what is left to remove.
            self._note(None, files)
        self._withdraw(plan.folder)

    @staticmethod
    def _withdraw(folder: AnyPath) -> None:
        """Makes a dataset none: the manifest goes first."""
        (folder / MANIFEST_FILE).unlink()
        for name in (CHECKSUM_FILE, *DESCRIPTION_FILES):
            (folder / name).unlink(missing_ok=True)

    def _note(self, this: dict[str, Any] | None, files: list[str]) -> None:
        """Notes the plan under way, and the files in the destination that are its own."""
        strict_json.write_note(self._folder / _PLAN_FILE, {"identity": this, "files": files})

    def ticket(self) -> RunToken:
        """What a worker needs to know that the run still is the one that writes, from `begin` on."""
        note = self._folder / _PLAN_FILE
        return RunToken(note=note, sha256=atomic.sha256_of(note))

    def mark(self, place: ShardLocation, row: ShardRow) -> None:
        """Notes that a shard is whole."""
        strict_json.write_note(self._folder / self._marker(place), dataclasses.asdict(row))

    def remove(self) -> None:
        """Removes the folder: the manifest is written, nothing is left to remember."""
        atomic.remove_folder(self._folder)

    def _marker(self, place: ShardLocation) -> str:
        return f"{place.split}-{place.number:06d}.json"

    def _read(self, name: str) -> dict[str, Any] | None:
        """A file of the folder; None where it is absent, and an empty one where it is damaged or not ours."""
        try:
            return strict_json.read_note(self._folder / name)
        except FileNotFoundError:
            return None
        except ValueError:
            return {}


def is_there(folder: AnyPath, row: FileRow) -> bool:
    """Whether a file of a dataset is there and has its size."""
    try:
        return (folder / row.name).stat().st_size == row.bytes
    except FileNotFoundError:
        return False


def _remove_files(folder: AnyPath, names: object) -> None:
    for name in names if isinstance(names, list) else []:
        pure = PurePosixPath(str(name))
        if not pure.is_absolute() and ".." not in pure.parts:
            (folder / pure).unlink(missing_ok=True)
