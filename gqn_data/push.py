"""Publication of a dataset on the Hugging Face hub: checked, then committed as a whole.

push_dataset("data/zarr/rooms_ring_camera", "user/rooms_ring_camera")
"""

from __future__ import annotations

import os
from pathlib import Path

from gqn_data.errors import GQNError, ShardChecksumError, SourceMissing
from gqn_data.inspect.verify import verify
from gqn_data.io import atomic, hub
from gqn_data.io.paths import local_path, parse_path
from gqn_data.publish.hub import connect, upload
from gqn_data.schema.manifest import CHECKSUM_FILE, DESCRIPTION_FILES, MANIFEST_FILE, read_manifest
from gqn_data.sources.raw_folder import scene_set_of_manifest
from gqn_data.units import count_of

_LICENCE_FILE = "LICENSE"


def push_dataset(
    folder: str | os.PathLike[str], name: str, *, private: bool = False, workers: int | None = None
) -> str:
    """Verify a converted dataset, commit it to the hub in one commit, and return its address with the commit.

    Every byte is compared with its checksum before the upload, and again on upload. Files of an earlier dataset in the
    repository are replaced or removed by the same commit; other files stay.

    Args:
        folder: local folder of the dataset.
        name: repository, `USER/NAME`; it is created if it does not exist.
        private: create a private repository.
        workers: processes that verify; None for one per core.

    Raises:
        SourceMissing: the folder is not a converted dataset.
        ShardChecksumError: the dataset is incomplete or damaged.
        OptionError: the name or an option is not possible, or huggingface_hub is not installed.
        DestinationError: the repository holds something else, or is public and `private` is True.
        StoreError: the upload failed; push again to resume.
    """
    folder = local_path(folder, "datasets to push lie")
    repository = hub.Repository("dataset", hub.check_name(name))
    if not atomic.is_present(folder / MANIFEST_FILE):
        raise SourceMissing(f"{folder}: {MANIFEST_FILE} is missing, expected a converted dataset. Run gqn-data convert")
    manifest = read_manifest(folder)
    if manifest.in_place:
        raise SourceMissing(f"{folder}: found indexed source files, expected a converted dataset. Run gqn-data convert")
    api = connect(repository)
    found = verify(folder, scene_set_of_manifest(manifest), workers=workers)
    if found.faults:
        raise ShardChecksumError(
            f"{folder}: {count_of(len(found.faults), 'fault')}, expected none; the first: {found.faults[0]}"
        )
    rows = manifest.all_files()
    beside = [
        file
        for file in (*DESCRIPTION_FILES, _LICENCE_FILE, CHECKSUM_FILE)
        if (folder / file).is_file() and not (folder / file).is_symlink()  # a link may lead to anything
    ]
    files: dict[str, Path | bytes] = {
        file: folder / file for file in (*(row.name for row in rows), *beside, MANIFEST_FILE)
    }
    scenes = sum(split.scenes for split in manifest.splits.values())
    pushed = upload(
        api,
        repository,
        files,
        marker=MANIFEST_FILE,
        message=f"Push {manifest.scene_set}, {count_of(scenes, 'scene')}",
        private=private,
        checksums={row.name: row.sha256 for row in rows if row.sha256 is not None},
        stale=_files_of(repository),
    )
    return str(pushed)


def _files_of(repository: hub.Repository) -> list[str]:
    """Return the files of the dataset that the repository holds; empty without one that this version can read."""
    try:
        return [row.name for row in read_manifest(parse_path(str(repository))).all_files()]
    except GQNError:
        return []
