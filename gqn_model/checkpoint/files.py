"""Checkpoint files: names, checksums, completeness and removal. Does not import torch."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from gqn_data.errors import CheckpointError
from gqn_data.io import atomic

FOLDER = "checkpoints"
_MOST_IN_A_SUM = 4096


def checkpoint_path(run: Path, step: int) -> Path:
    """Return the path of a checkpoint."""
    return run / FOLDER / f"{step:08d}.pt"


def sum_path(path: Path) -> Path:
    """Return the path of a checkpoint's checksum."""
    return path.with_name(path.name + ".sha256")


def checkpoint_steps(run: Path) -> list[int]:
    """Return the steps of the run's complete checkpoints, ascending."""
    found = [path.with_suffix("") for path in (run / FOLDER).glob("*.pt.sha256")]
    named = [(int(path.stem), path) for path in found if path.stem.isdecimal()]
    return sorted(step for step, path in named if path == checkpoint_path(run, step) and path.is_file())


def write_sum(path: Path) -> None:
    """Write the checksum of a checkpoint in the format of `sha256sum -c`; it makes the checkpoint complete.

    Raises:
        NoSpace: the disk is full.
    """
    with atomic.writing(sum_path(path)) as file:
        file.write(f"{atomic.sha256_of(path)}  {path.name}\n".encode())


def read_checked(run: Path, step: int, most: int) -> bytes:
    """Return the bytes of the checkpoint of a step, after comparing them with its checksum.

    Args:
        run: the run's folder.
        step: step of a complete checkpoint.
        most: largest possible size in bytes; a larger file is not read.

    Raises:
        CheckpointError: the file is too large, or the bytes differ; the message names the last intact checkpoint
            before it.
    """
    path = checkpoint_path(run, step)
    expected = _sum_of(path)
    try:
        raw = atomic.read_bounded(path, most)
    except ValueError as error:
        reason = f"{error}, for the network of the run's config.json"
    else:
        found = hashlib.sha256(raw).hexdigest()
        if expected == found:
            return raw
        reason = f"sha256 {found[:12]}, expected {expected[:12]}"
    remedy = "no earlier checkpoint is intact: train again"
    for other in reversed([other for other in checkpoint_steps(run) if other < step]):
        before = checkpoint_path(run, other)
        if before.stat().st_size <= most and _sum_of(before) == atomic.sha256_of(before):
            remedy = (
                f"{before.name} is intact: pass --step {other}, "
                f"or remove both damaged files to resume from step {other}"
            )
            break
    raise CheckpointError(f"{path}: damaged: {reason}; {remedy}")


def remove_checkpoints(run: Path, steps: Iterable[int]) -> None:
    """Remove checkpoints, and checksums that a killed removal left."""
    for step in steps:
        checkpoint_path(run, step).unlink(missing_ok=True)  # before its checksum: a kill leaves only a small file
    for path in (run / FOLDER).glob("*.pt.sha256"):
        if not path.with_suffix("").exists():
            path.unlink(missing_ok=True)


def refuse_packed(raw: bytes) -> None:
    """Raise ValueError if members of the archive are compressed: torch never compresses, a decompression bomb does."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = archive.infolist()
    held = sum(part.file_size for part in parts)
    if held > len(raw):
        raise ValueError(f"its members take {held} bytes, expected at most the {len(raw)} of the file")
    packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"its member {packed[0][:80]} is compressed, expected stored")


def _sum_of(path: Path) -> str:
    """Return the recorded SHA-256 of a checkpoint, or `nothing` if the file does not hold one."""
    try:
        words = atomic.read_bounded(sum_path(path), _MOST_IN_A_SUM).decode("ascii").split()
    except ValueError:
        words = []
    return words[0] if words else "nothing"
