"""The files of checkpoints: their names, their checksums, and which of them are whole. What is in them: `checkpoints`.

Imports no torch.
"""

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
    """Where the checkpoint of that step lies."""
    return run / FOLDER / f"{step:08d}.pt"


def sum_path(path: Path) -> Path:
    """Where the checksum of a checkpoint lies."""
    return path.with_name(path.name + ".sha256")


def checkpoint_steps(run: Path) -> list[int]:
    """The steps of which the run has whole checkpoints, ascending."""
    found = [path.with_suffix("") for path in (run / FOLDER).glob("*.pt.sha256")]
    named = [(int(path.stem), path) for path in found if path.stem.isdecimal()]
    return sorted(step for step, path in named if path == checkpoint_path(run, step) and path.is_file())


def write_sum(path: Path) -> None:
    """Writes the checksum of a checkpoint, in the form that `sha256sum -c` reads; the checkpoint is then one.

    Raises:
        NoSpace: the disk is full.
    """
    with atomic.writing(sum_path(path)) as file:
        file.write(f"{atomic.sha256_of(path)}  {path.name}\n".encode())


def check_sum(run: Path, step: int, raw: bytes) -> None:
    """Returns where `raw` is what was written as the checkpoint of that step.

    Raises:
        CheckpointError: it is not; the message names the last one before it that is whole.
    """
    path = checkpoint_path(run, step)
    expected, found = _sum_of(path), hashlib.sha256(raw).hexdigest()
    if expected == found:
        return
    earlier = [other for other in checkpoint_steps(run) if other < step]
    remedy = "no earlier one is whole: train anew"
    for other in reversed(earlier):
        before = checkpoint_path(run, other)
        if _sum_of(before) == atomic.sha256_of(before):
            remedy = f"{before.name} is whole: give --step {other}, or remove both files to go on from step {other}"
            break
    raise CheckpointError(f"{path}: damaged: sha256 {found[:12]}, expected {expected[:12]}; {remedy}")


def remove_checkpoints(run: Path, steps: Iterable[int]) -> None:
    """Removes checkpoints, and what a run that was killed at this left of one."""
    for step in steps:
        checkpoint_path(run, step).unlink(missing_ok=True)  # first: what a kill leaves is small, and no checkpoint
    for path in (run / FOLDER).glob("*.pt.sha256"):
        if not path.with_suffix("").exists():
            path.unlink(missing_ok=True)


def refuse_packed(raw: bytes) -> None:
    """Raises ValueError where parts of the archive are packed: torch packs nothing, and a bomb would be unpacked."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = archive.infolist()
    held = sum(part.file_size for part in parts)
    if held > len(raw):
        raise ValueError(f"its parts take {held} bytes, the file has {len(raw)}")
    packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"{packed[0][:80]} in it is packed")


def _sum_of(path: Path) -> str:
    """The SHA-256 that is noted of a checkpoint; `nothing` where what is noted is none."""
    try:
        words = atomic.read_bounded(sum_path(path), _MOST_IN_A_SUM).decode("ascii").split()
    except ValueError:
        words = []
    return words[0] if words else "nothing"
