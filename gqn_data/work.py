"""The work folder of a conversion: which shards are done, so that a run that was cut off can go on.

It holds the plan, and a marker with the manifest's row for every shard that is whole. What another plan left in
the destination is known from its own plan, and removed. Imports `json_files`, `manifest`, `plan`, `storage`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import PurePosixPath
from typing import Any

from gqn_data import json_files, storage
from gqn_data.errors import ManifestError
from gqn_data.formats.contract import ShardPlace
from gqn_data.manifest import CHECKSUM_FILE, MANIFEST_FILE, FileRow, ShardRow, parse_shard, read_manifest
from gqn_data.places import Place
from gqn_data.plan import Plan, identity
from gqn_data.scene_sets import Split

_PLAN_FILE = "plan.json"

# The shards of a plan that are whole, by split and number.
Done = dict[tuple[Split, int], ShardRow]


class WorkFolder:
    """The work folder of one container of a conversion.

    Args:
        folder: may be absent.
    """

    def __init__(self, folder: Place) -> None:
        self._folder = folder

    def begin(self, plan: Plan, *, overwrite: bool) -> Done:
        """Makes the destination ready for a plan: what is done of it stays, what is of another plan goes.

        From here until the manifest is written anew the destination is no dataset.

        Args:
            plan: what will be written.
            overwrite: remove a dataset that is there, whatever it is.
        """
        storage.make_folder(plan.folder)
        storage.remove_temporaries(plan.folder)
        if (plan.folder / MANIFEST_FILE).exists():
            self._open_again(plan, keep=not overwrite)
        noted = self._read(_PLAN_FILE)
        this = identity(plan.manifest)
        if noted is not None and noted.get("identity") != this:
            _remove_files(plan.folder, noted.get("files"))
            storage.remove_folder(self._folder)
            noted = None
        if noted is None:
            self._note(this, plan.names())
        done: Done = {}
        for place in plan.places:
            with contextlib.suppress(KeyError, TypeError, AttributeError):  # no marker of ours: the shard is made anew
                row = parse_shard(self._read(self._marker(place)) or {})
                if row.scenes == place.scenes and all(is_there(plan.folder, file) for file in row.files):
                    done[place.split, place.number] = row
        return done

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
        (plan.folder / MANIFEST_FILE).unlink()
        (plan.folder / CHECKSUM_FILE).unlink(missing_ok=True)

    def _note(self, this: dict[str, Any] | None, files: list[str]) -> None:
        """Notes the plan under way, and the files in the destination that are its own."""
        json_files.write_note(self._folder / _PLAN_FILE, {"identity": this, "files": files})

    def mark(self, place: ShardPlace, row: ShardRow) -> None:
        """Notes that a shard is whole."""
        json_files.write_note(self._folder / self._marker(place), dataclasses.asdict(row))

    def remove(self) -> None:
        """Removes the folder: the manifest is written, nothing is left to remember."""
        storage.remove_folder(self._folder)

    def _marker(self, place: ShardPlace) -> str:
        return f"{place.split}-{place.number:06d}.json"

    def _read(self, name: str) -> dict[str, Any] | None:
        """A file of the folder; None where it is absent, and an empty one where it is damaged or not ours."""
        try:
            return json_files.read_note(self._folder / name)
        except FileNotFoundError:
            return None
        except ValueError:
            return {}


def is_there(folder: Place, row: FileRow) -> bool:
    """Whether a file of a dataset is there and has its size."""
    try:
        return (folder / row.name).stat().st_size == row.bytes
    except FileNotFoundError:
        return False


def _remove_files(folder: Place, names: object) -> None:
    for name in names if isinstance(names, list) else []:
        pure = PurePosixPath(str(name))
        if not pure.is_absolute() and ".." not in pure.parts:
            (folder / pure).unlink(missing_ok=True)
