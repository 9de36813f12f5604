"""The errors of the project: one root, one leaf a kind of fault.

Every message says what is wrong, where (file, record, offset), what was found against what was expected,
and what to do. The commands turn any `GQNError` into one line and exit status 1.
Imports nothing of the project.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class GQNError(Exception):
    """The root of all errors that this project raises on purpose."""


class UnknownName(GQNError):
    """A name that is not in its table; the message offers the nearest valid one."""

    def __init__(self, kind: str, name: str, valid: Iterable[str]) -> None:
        self.arguments = (kind, name, tuple(sorted(valid)))
        names = self.arguments[2]
        near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(names)}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")

    def __reduce__(self) -> tuple[type[UnknownName], tuple[str, str, tuple[str, ...]]]:
        # Exceptions cross process borders by pickling their arguments, not their message.
        return type(self), self.arguments


class UnknownSceneSet(UnknownName):
    """A scene set that is neither in the catalogue nor an alias."""


class SourceMissing(GQNError):
    """A folder or file to read from is absent, or holds nothing that we can read."""


class CorruptRecord(GQNError):
    """A TFRecord that cannot be trusted: its framing, its checksum or what it holds is wrong.

    Attributes:
        file: the source file.
        record: the number of the record in the file, from 0.
        offset: the byte in the file where the fault was seen.
        reason: what is wrong, found against expected.
    """

    def __init__(
        self, file: object, record: int, offset: int, reason: str, remedy: str = "fetch the file again"
    ) -> None:
        self.file = str(file)
        self.record = record
        self.offset = offset
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{file}: record {record} at byte {offset}: {reason}; {remedy}")

    def __reduce__(self) -> tuple[type[CorruptRecord], tuple[str, int, int, str, str]]:
        # Exceptions cross process borders by pickling their arguments, not their message.
        return type(self), (self.file, self.record, self.offset, self.reason, self.remedy)


class CorruptFraming(CorruptRecord):
    """A record whose length cannot be trusted, so that the rest of the file cannot be read either."""


class CorruptFrame(GQNError):
    """Bytes that should be a JPEG frame of a known size, and are not."""


class IndexFileError(GQNError):
    """An index that is absent, of another version, or does not fit the file that it describes."""


class ArrayFileError(GQNError):
    """An array file of somebody else's that is damaged, or not what its name and its set say."""


class ManifestError(GQNError):
    """A manifest that is absent, of another schema version, or says what cannot be."""


class ShardChecksumError(GQNError):
    """A shard whose bytes are not those that were written."""


class OriginError(GQNError):
    """Scenes of two origins would be mixed in one folder."""


class DestinationError(GQNError):
    """What is to be written cannot be written there: in use, already holding something else."""


class NoSpace(GQNError):
    """The disk has not the room for what would be written."""


class StoreError(GQNError):
    """An object store that cannot be asked, or does not do what it was asked for."""


class FetchError(GQNError):
    """A remote file that could not be fetched."""


class RemoteMissing(FetchError):
    """A remote file that is not there."""


class RemoteRefused(FetchError):
    """A server's answer that asking again will not change: no permission, no valid certificate, no size."""


class RemoteDamaged(FetchError):
    """A remote file whose bytes were wrong each time that they were fetched."""


class RemoteChanged(FetchError):
    """A remote file that is no longer the one that was asked about; what came of it so far is of no use."""


class RemoteFault(FetchError):
    """A fault that may pass: a connection cut, a server too busy. Asking again may help.

    Attributes:
        after: seconds that the server asks to be left alone for, where it says.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(message)

    def __reduce__(self) -> tuple[type[RemoteFault], tuple[str, float | None]]:
        return type(self), (str(self), self.after)


class FetchStopped(FetchError):
    """A fetch that was told to stop; what has come is kept for the next run."""


class StoreRefused(StoreError):
    """An object store that does not let this user in."""


class StoreChanged(StoreError):
    """An object that is not of the version that was asked for any more."""


class WorkerLost(GQNError):
    """A worker process that ended without telling why."""


class ClusterError(GQNError):
    """A cluster that cannot be used: not reached, of another version, or blind to the data."""


class OptionError(GQNError):
    """A value that no run could use; found against possible."""


class CheckpointError(GQNError):
    """A run or a checkpoint that is absent, damaged, or belongs to something else."""


class LossNotFinite(GQNError):
    """A training whose loss is no longer a number."""


class RunMismatch(GQNError):
    """A dataset that does not fit the run."""


class RankLost(GQNError):
    """Another process of a training is gone, or cannot be reached."""


class TrainingStopped(GQNError):
    """A training that was asked to end, and saved what it had."""
