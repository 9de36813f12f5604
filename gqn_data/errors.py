"""Exceptions of the project: one root class, one leaf class per kind of fault.

A message is one line: where (file, record, offset), what was found, what was expected, and what to do.
The commands print any `GQNError` as that line and exit with status 1.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class GQNError(Exception):
    """Base class of all errors that this project raises."""


class UnknownName(GQNError):
    """A name that is not in its table. The message suggests the nearest valid name."""

    def __init__(self, kind: str, name: str, valid: Iterable[str]) -> None:
        self.arguments = (kind, name, tuple(sorted(valid)))
        names = self.arguments[2]
        near = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
        self.near = f"did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}; {self.near or 'one of: ' + ', '.join(names)}")

    def __reduce__(self) -> tuple[type[UnknownName], tuple[str, str, tuple[str, ...]]]:
        # By default an exception is unpickled from its message; `__init__` takes other arguments.
        return type(self), self.arguments


class UnknownSceneSet(UnknownName):
    """A name that is neither a scene set of the catalogue nor an alias of one."""


class SourceMissing(GQNError):
    """An input folder or file that is missing, or contains nothing readable."""


class CorruptRecord(GQNError):
    """A TFRecord with wrong framing, a wrong checksum or wrong content.

    Attributes:
        file: source file.
        record: index of the record in the file, from 0.
        offset: byte offset of the fault in the file.
        reason: what was found and what was expected.
        remedy: what the user can do.
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
        # By default an exception is unpickled from its message; `__init__` takes other arguments.
        return type(self), (self.file, self.record, self.offset, self.reason, self.remedy)


class CorruptFraming(CorruptRecord):
    """A record with an invalid length, so that the rest of the file cannot be read either."""


class CorruptFrame(GQNError):
    """Bytes that are not a JPEG frame of the expected size."""


class ArrayFileError(GQNError):
    """A third-party array file that is damaged, or does not match its name and scene set."""


class ManifestError(GQNError):
    """A manifest that is missing, invalid, or of another schema version."""


class ShardChecksumError(GQNError):
    """A shard file that is missing, or differs from what was written."""


class PhotosError(GQNError):
    """A photo or camera file that `import` cannot read, or a camera that x, y, z, yaw and pitch do not describe."""


class IrregularFile(GQNError):
    """A named pipe, socket, device, folder or link where a regular file is expected.

    Attributes:
        path: the file.
        kind: what it is, such as `a named pipe`.
    """

    def __init__(self, path: object, kind: str) -> None:
        self.path = str(path)
        self.kind = kind
        super().__init__(f"{path}: found {kind}, expected a regular file. Remove it, or copy the file again")

    def __reduce__(self) -> tuple[type[IrregularFile], tuple[str, str]]:
        # By default an exception is unpickled from its message; `__init__` takes other arguments.
        return type(self), (self.path, self.kind)


class OriginError(GQNError):
    """An origin that is invalid, or differs from the origin of the scenes in the same folder."""


class DestinationError(GQNError):
    """An output folder that another run is writing to, or that contains something else."""


class NoSpace(GQNError):
    """A disk without enough free space for the output."""


class StoreError(GQNError):
    """A request to an object store that failed."""


class FetchError(GQNError):
    """A remote file that could not be downloaded."""


class RemoteMissing(FetchError):
    """A remote file that does not exist."""


class RemoteRefused(FetchError):
    """A request that fails on every retry: missing permission, invalid certificate, or an answer without a size."""


class RemoteDamaged(FetchError):
    """A remote file whose bytes were wrong on every attempt."""


class RemoteChanged(FetchError):
    """A remote file that was replaced during the download; the bytes received so far are useless."""


class RemoteFault(FetchError):
    """A temporary fault, such as a lost connection or an overloaded server. A retry may succeed.

    Attributes:
        after: seconds to wait before the retry, as the server asked; None if it did not say.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(message)

    def __reduce__(self) -> tuple[type[RemoteFault], tuple[str, float | None]]:
        return type(self), (str(self), self.after)


class FetchStopped(FetchError):
    """A download that was asked to stop; the bytes received are kept for the next run."""


class StoreRefused(StoreError):
    """An object store that denied access."""


class StoreMissing(StoreError):
    """A bucket or container that does not exist."""


class StoreChanged(StoreError):
    """An object that was replaced by another version while it was read."""


class EndlessError(GQNError, TypeError):
    """`len` of endless scenes. A `TypeError`, as Python raises for objects without a length."""


class IterationEnded(GQNError):
    """A loader's iterator used after a newer iteration, `load_state_dict` or `close` ended it."""


class WorkerLost(GQNError):
    """A worker process that died without reporting an error."""


class ClusterError(GQNError):
    """A cluster that is unreachable, runs another version, or cannot see the data."""


class OptionError(GQNError):
    """An invalid option or argument. The message gives the possible values."""


class ExtraMissing(OptionError):
    """An option that needs an optional dependency that is not installed."""


class CheckpointError(GQNError):
    """A run or checkpoint that is missing, damaged, or belongs to another model or dataset."""


class LossNotFinite(GQNError):
    """A training run whose loss is NaN or infinite."""


class RunMismatch(GQNError):
    """A dataset that does not match the run."""


class RankLost(GQNError):
    """Another rank of a distributed run that died, or cannot be reached."""


class TrainingStopped(GQNError):
    """A training run that was asked to stop, and saved its state."""


def install_hint(extra: str) -> str:
    """Return the command that installs an optional dependency; it needs a checkout, as no index has the package."""
    return f"pip install '.[{extra}]' (in a checkout of gqn-toolkit)"
