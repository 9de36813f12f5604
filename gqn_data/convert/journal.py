"""Work folder of a conversion: records finished shards, so that an interrupted run resumes.

It holds the plan, and per finished shard a marker with its row of the manifest. The plan of another conversion names
the files that it left in the destination, so that they can be removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gqn_data.convert.plan import Plan, identity
from gqn_data.errors import DestinationError, ManifestError
from gqn_data.formats.contract import Format, ShardLocation
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.schema.catalog import SPLITS, Split
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

# Shards of every container: `train/00000.tar`, `train_images.npy`.
_OF_A_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(\W|_)")

# Rows of finished shards, by split and number.
Done = dict[tuple[Split, int], ShardRow]


@dataclass(frozen=True, kw_only=True)
class RunToken:
    """Lets a worker check that the run that sent it still writes the dataset.

    A cluster worker outlives a killed client, and a run with another plan may have started since.

    Attributes:
        path: file that records the plan of the run.
        sha256: checksum of this file when the run started.
    """

    path: AnyPath
    sha256: str

    def check(self) -> None:
        """Raise if the run has been replaced.

        Raises:
            DestinationError: the recorded plan has changed or was removed.
        """
        try:
            found = atomic.sha256_of(self.path)
        except FileNotFoundError:
            found = ""
        if found != self.sha256:
            raise DestinationError(f"{self.path}: the run of this shard is over; the shard is not written")


class WorkFolder:
    """Work folder of one container.

    Args:
        folder: path; the folder may not exist yet.
    """

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder

    def begin(
        self,
        folder: AnyPath,
        this: dict[str, Any],
        plan: Plan | None = None,
        *,
        overwrite: bool = False,
        tidy: bool = True,
    ) -> None:
        """Prepare the destination: keep the finished shards of this conversion, and remove files of others.

        The destination is not a dataset again until its manifest is written.

        Args:
            folder: folder of the dataset.
            this: JSON values that are equal for two runs of the same conversion.
            plan: plan of the dataset; None if it grows during the conversion.
            overwrite: remove an existing dataset; without a plan it is removed in any case.
            tidy: remove temporary files of killed runs.

        Raises:
            DestinationError: the folder holds files of others that the dataset would replace.
        """
        if not overwrite:
            self.check_destination(folder)
        atomic.make_folder(folder)
        if tidy:
            atomic.remove_temporaries(folder)
        if (folder / MANIFEST_FILE).exists():
            # A joined shard does not record its pieces, so it is written again as a whole.
            keeps = plan is not None and plan.format.pieces is None and not overwrite
            self._reopen(folder, this, plan if keeps else None)
        recorded = self._read(_PLAN_FILE)
        if recorded is not None and recorded.get("identity") != this:
            self._clear(folder, recorded)
            recorded = None
        if recorded is None:
            self._write_plan(this, plan.names() if plan is not None else [])

    def check_destination(self, folder: AnyPath) -> None:
        """Raise if a folder is neither a dataset nor an unfinished one, but holds files with the names of one.

        Raises:
            DestinationError: there is such a file; the dataset would replace it.
        """
        if (folder / MANIFEST_FILE).exists() or self._read(_PLAN_FILE) is not None:
            return
        for name in _dataset_files(folder):
            if not atomic.is_temporary(name):  # of a killed run, or of a running part
                raise DestinationError(
                    f"{folder / name}: found a file but no {MANIFEST_FILE}, expected a new folder or a dataset. "
                    "Write to another folder, or move the file away"
                )

    def begin_part(self, plan: Plan) -> None:
        """Prepare the destination for a part of a job array.

        The first part prepares it as `begin` does. Temporary files are kept: they may belong to running parts.

        Args:
            plan: plan of all parts.

        Raises:
            DestinationError: another plan is recorded; a part never removes files of other parts.
        """
        this = identity(plan.manifest)
        recorded = self._read(_PLAN_FILE) or {}
        other = recorded.get("identity")
        if other is not None and other != this:
            raise DestinationError(
                f"{plan.folder}: found an unfinished conversion of other source files or with other options; "
                f"give all parts the same; to discard it, remove {plan.folder} and {self._folder}"
            )
        if other is None or (plan.folder / MANIFEST_FILE).exists():
            self.begin(plan.folder, this, plan, tidy=False)

    def shards_done(self) -> int:
        """Return the number of finished shards of all parts."""
        return sum(name.endswith(".json") and name != _PLAN_FILE for name in atomic.list_names(self._folder))

    def _clear(self, folder: AnyPath, recorded: dict[str, Any]) -> None:
        """Remove the files of a recorded plan from the destination, then the work folder."""
        _remove_files(folder, recorded.get("files"))
        for name in atomic.list_names(self._folder):
            marker = self._read(name) or {}
            _remove_files(folder, marker.get("begun"))
            with contextlib.suppress(KeyError, TypeError):
                _remove_files(folder, [row.name for row in parse_shard(marker).files])
        atomic.remove_folder(self._folder)

    def abandon(self, folder: AnyPath, *, checked: bool) -> None:
        """Remove the files of this conversion from the destination, then the work folder.

        Args:
            folder: folder of the dataset.
            checked: `check_destination` found none of a dataset's files before, so that all of them are ours. Else
                metadata and descriptions stay, which an interrupted publication has written.
        """
        self._clear(folder, self._read(_PLAN_FILE) or {})
        if checked and not (folder / MANIFEST_FILE).exists():
            _remove_files(folder, list(_dataset_files(folder)))

    def row_of(self, shard: ShardLocation, kind: Format) -> ShardRow | None:
        """Return the row of a finished shard of a container; None if the shard must be written."""
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # an invalid marker: write the shard again
            row = parse_shard(self._read(self._marker(shard)) or {})
            if kind.pieces:
                return row if kind.pieces.are_written(shard, row) else None
            if row.scenes == shard.scenes and all(is_present(shard.folder, file) for file in row.files):
                return row
        return None

    def begin_shard(self, shard: ShardLocation, names: tuple[str, ...]) -> None:
        """Record the files of a shard before they are written, because the recorded plan does not name them."""
        strict_json.write_note(self._folder / self._marker(shard), {"begun": list(names)})

    def _reopen(self, folder: AnyPath, this: dict[str, Any], plan: Plan | None) -> None:
        """Turn a dataset into an unfinished conversion, whose finished shards are those of `plan`, if given."""
        files: list[str] = []
        with contextlib.suppress(ManifestError):
            manifest = read_manifest(folder)
            files = [row.name for row in manifest.all_files()]
            if plan is not None:
                self._write_plan(this, plan.names())
                for shard in plan.shards:
                    self.mark(shard, manifest.splits[shard.split].shards[shard.number])
        if plan is None:
            # Recorded first, so that the next run can remove the files if this one is interrupted here.
            self._write_plan(None, files)
        self.withdraw(folder)

    @staticmethod
    def withdraw(folder: AnyPath) -> None:
        """Remove the manifest, then the files that describe the dataset."""
        (folder / MANIFEST_FILE).unlink()
        for name in (CHECKSUM_FILE, *DESCRIPTION_FILES):
            (folder / name).unlink(missing_ok=True)

    def _write_plan(self, this: dict[str, Any] | None, files: list[str]) -> None:
        """Record the identity of the plan, and its files in the destination."""
        strict_json.write_note(self._folder / _PLAN_FILE, {"identity": this, "files": files})

    def token(self) -> RunToken:
        """Return the token of this run; valid once the destination is prepared."""
        path = self._folder / _PLAN_FILE
        return RunToken(path=path, sha256=atomic.sha256_of(path))

    def mark(self, shard: ShardLocation, row: ShardRow) -> None:
        """Record a finished shard."""
        strict_json.write_note(self._folder / self._marker(shard), dataclasses.asdict(row))

    def remove(self) -> None:
        """Remove the folder."""
        atomic.remove_folder(self._folder)

    def _marker(self, shard: ShardLocation) -> str:
        return f"{shard.split}-{shard.number:06d}.json"

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return the content of a file in the folder; None if it is missing, {} if it is damaged."""
        try:
            return strict_json.read_note(self._folder / name)
        except FileNotFoundError:
            return None
        except ValueError:
            return {}


def is_present(folder: AnyPath, row: FileRow) -> bool:
    """Return whether a file of a dataset exists with its recorded size."""
    try:
        return (folder / row.name).stat().st_size == row.bytes
    except FileNotFoundError:
        return False


def _dataset_files(folder: AnyPath) -> Iterator[str]:
    """Yield the files that have the names of a dataset's, without its manifest."""
    for name in _file_names(folder):
        if name in (CHECKSUM_FILE, *DESCRIPTION_FILES) or _OF_A_SPLIT.match(name):
            yield name


def _file_names(folder: AnyPath) -> Iterator[str]:
    """Yield the names, with slashes, of the files in a folder and its subfolders."""
    if isinstance(folder, StorePath):
        yield from (name for name, _ in folder.files())
    else:
        yield from (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _remove_files(folder: AnyPath, names: object) -> None:
    for name in names if isinstance(names, list) else []:
        pure = PurePosixPath(str(name))
        if not pure.is_absolute() and ".." not in pure.parts:
            (folder / pure).unlink(missing_ok=True)
