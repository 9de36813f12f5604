"""`SceneWriter`: write your own scenes from Python, as arrays or JPEG bytes, to the datasets that `convert` writes.

    with SceneWriter("data/zarr/my_scenes") as writer:
        writer.add(frames, cameras)    # uint8 (views, height, width, 3), or the JPEG bytes of each view

The folder becomes a dataset when the block ends without an error. The next writer removes the files that a killed
process left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gqn_data.convert.destination import WORK_FOLDER, lock_work_folder, publish, put_in_place, stage
from gqn_data.convert.journal import Done, WorkFolder
from gqn_data.convert.plan import SHARD_BYTES, Options, Plan, check_destination, convert_frames_row
from gqn_data.convert.scene_checks import SceneChecker, encoding_of
from gqn_data.convert.spool import Spool
from gqn_data.counts import as_count
from gqn_data.errors import DestinationError, OptionError, UnknownName
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath, parse_path
from gqn_data.schema.catalog import CAMERA_FIELDS, SPLITS, Split, is_in_catalogue, is_set_name
from gqn_data.schema.geometry import Geometry
from gqn_data.schema.manifest import MANIFEST_FILE, CamerasRow, Encoding, FramesRow, Manifest, SplitRow
from gqn_data.schema.origin import Origin
from gqn_data.schema.scene import Encoded, Scene
from gqn_data.version import TOOL

_DIGITS_OF_CONTENT = 32  # of the SHA-256 of a split's scenes; 128 bits distinguish any two sets


class SceneWriter:
    """Context manager that writes scenes to a dataset.

    Scenes are buffered in a temporary file until they fill a shard, so that memory does not grow with the set. All
    scenes must have the same number of views, frame size and encoding (arrays or JPEG bytes).

    Args:
        path: folder of the dataset, by convention `data/zarr/my_scenes`; a path, or the URL of an object store.
        name: name of the scene set: lower-case letters, digits, - and _; None for the folder's name.
        format: container, as in `gqn-data convert --format`.
        camera_fields: names of a camera's numbers, in order; angles in radians.
        frames: `jpeg` or `raw`; None to store frames as added.
        jpeg_quality: 1 to 100, to encode arrays as JPEG.
        details: JSON values that describe the origin of the scenes in the manifest.
        scenes_per_shard: number of scenes per shard; None for as many as `shard_bytes` hold.
        shard_bytes: approximate size of a shard.
        overwrite: replace an existing dataset when the first new shard is written.
        field_of_view: angle between the edges of a frame in degrees. Models that project need the geometry: this, and
            the next two (`gqn_data.schema.geometry.Geometry`).
        yaw_sign: 1 if yaw grows counter-clockwise seen from above, -1 if clockwise.
        depth_range: least and largest depth of surfaces along the optical axis, in units of the positions.

    Raises:
        OptionError: a name or a value is invalid.
        UnknownName: the container is unknown.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | StorePath,
        *,
        name: str | None = None,
        format: str = "zarr",  # noqa: A002  the command line's word
        camera_fields: Sequence[str] = CAMERA_FIELDS,
        frames: Encoding | None = None,
        jpeg_quality: int | None = None,
        details: Mapping[str, Any] | None = None,
        scenes_per_shard: int | None = None,
        shard_bytes: int = SHARD_BYTES,
        overwrite: bool = False,
        field_of_view: float | None = None,
        yaw_sign: int | None = None,
        depth_range: tuple[float, float] | None = None,
    ) -> None:
        self.folder: AnyPath = parse_path(path).absolute()
        self._checker = SceneChecker(camera_fields)
        self._options = Options(formats=(format,), frames=frames, jpeg_quality=jpeg_quality, shard_bytes=shard_bytes)
        self._kind = FORMATS[format]
        check_destination(self._kind, self.folder)
        self.name = _checked_name(name or self.folder.name)
        self._per_shard = None if scenes_per_shard is None else as_count("scenes_per_shard", scenes_per_shard, 1)
        self._details = _checked_details(details or {})
        self._overwrite = overwrite
        self._geometry = _checked_geometry(field_of_view, yaw_sign, depth_range)
        self._target = self.folder
        self._work = WorkFolder(self._target / WORK_FOLDER / "shards")
        self._lock = contextlib.ExitStack()
        self._open = False
        self._prepared = False  # whether the destination is: an existing dataset was removed
        self._failed = False
        self._frames: FramesRow | None = None
        self._splits: dict[Split, _SplitWriter] = {}
        self._shards: list[ShardLocation] = []
        self._done: Done = {}

    @property
    def camera_fields(self) -> tuple[str, ...]:
        """Names of a camera's numbers."""
        return self._checker.camera_fields

    def __enter__(self) -> Self:
        if self._open or self._done:
            raise OptionError(f"{self.folder}: this SceneWriter has written its dataset; create another")
        if (self.folder / MANIFEST_FILE).exists() and not self._overwrite:
            raise DestinationError(
                f"{self.folder}: found a dataset; replace it with overwrite=True, or write to another folder"
            )
        with contextlib.ExitStack() as opened:
            opened.enter_context(lock_work_folder(self.folder / WORK_FOLDER))
            if not self._overwrite:
                self._work.check_destination(self.folder)
            put_in_place(self.folder)
            self._target = stage(self.folder, dataclasses.replace(self._options, overwrite=self._overwrite))
            self._work = WorkFolder(self._target / WORK_FOLDER / "shards")  # below the lock
            self._lock = opened.pop_all()
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._open = False
        with self._lock:
            finished = False
            try:
                if kind is None:
                    self._finish()
                    finished = True
            finally:
                for split in self._splits.values():
                    split.spool.close()
                if not finished and self._prepared:
                    self._work.abandon(self._target, checked=not self._overwrite)
                    if self._target != self.folder:
                        atomic.remove_folder(self._target)

    def add(self, frames: NDArray[np.uint8] | Sequence[Encoded], cameras: ArrayLike, split: Split = "train") -> int:
        """Add a scene, and return its index in its split.

        Args:
            frames: uint8 (views, height, width, 3), RGB; or the JPEG bytes of each view, stored unchanged.
            cameras: (views, camera numbers), converted to float32.
            split: `train` or `test`.

        Raises:
            OptionError: the scene is invalid, or differs from the first in shape or encoding.
            CorruptFrame: a frame is not a valid JPEG, or has another size.
            NoSpace: the disk is full; the unfinished dataset is removed.
        """
        if not self._open:
            raise OptionError(f"{self.folder}: the writer is closed; call add() inside its with block")
        if self._failed:
            raise OptionError(f"{self.folder}: an earlier shard could not be written; create another SceneWriter")
        if split not in SPLITS:
            raise UnknownName("split", str(split), SPLITS)
        writer = self._splits.get(split)
        number = 0 if writer is None else writer.scenes
        scene, layout = self._checker.check(frames, cameras, f"scene {number} of {split}")
        if self._frames is None:
            row = FramesRow(encoding=encoding_of(scene), views=layout.views, height=layout.height, width=layout.width)
            self._frames = convert_frames_row(row, self._kind, self._options)
            self._checker.set_reference(scene, layout)
        if writer is None:
            work = self.folder / WORK_FOLDER
            on_disk = work if isinstance(work, Path) else None
            spool = Spool(layout, encoded=scene.encoded is not None, folder=on_disk)
            writer = self._splits[split] = _SplitWriter(spool)
        try:
            writer.add(scene)
            if self._is_full(writer):
                writer.per_shard = writer.spool.count
                self._write_shard(split, writer)
        except BaseException:
            self._failed = True
            raise
        return number

    def _is_full(self, split: _SplitWriter) -> bool:
        count = split.spool.count
        if self._per_shard or split.per_shard:
            return count >= (self._per_shard or split.per_shard)
        # Plans round to two significant digits: check whether the next such number would be too large.
        unit = int(10 ** max(0, len(str(count)) - 2))
        if count % unit:
            return False
        assert self._frames is not None  # noqa: S101  known since the first scene
        more = count + unit
        source_bytes = split.spool.bytes * more // count
        if not split.spool.encoded and self._frames.encoding == "jpeg":
            source_bytes //= 4  # the estimate of `plan`
        stored = self._kind.stored_bytes(more, source_bytes, split.spool.layout, self._frames.encoding)
        return stored > self._options.shard_bytes

    def _write_shard(self, name: Split, split: _SplitWriter) -> None:
        assert self._frames is not None  # noqa: S101  known since the first scene
        location = ShardLocation(
            folder=self._target,
            split=name,
            number=split.shards,
            first_scene=split.scenes - split.spool.count,
            scenes=split.spool.count,
            scenes_per_shard=split.per_shard,
            frames=self._frames,
            layout=split.spool.layout,
        )
        if not self._prepared:
            # Removes an existing dataset, and the files of killed writers: their random identity differs.
            self._prepared = True
            this = {"scene writer": secrets.token_hex(8)}
            self._work.begin(self._target, this, overwrite=self._overwrite)
        self._work.begin_shard(location, self._kind.names(location))
        row = self._kind.write_shard(location, split.spool.scenes())
        self._work.mark(location, row)
        self._done[name, location.number] = row
        self._shards.append(location)
        split.shards += 1
        split.spool.clear()

    def _finish(self) -> None:
        """Write the last shards, then the manifest, which makes the folder a dataset."""
        if self._failed:
            raise OptionError(f"{self.folder}: a shard could not be written; the unfinished dataset is removed")
        if not self._splits:
            raise OptionError(f"{self.folder}: found 0 scenes, expected 1 or more; call add()")
        for name, split in self._splits.items():
            if split.spool.count:
                split.per_shard = split.per_shard or split.spool.count
                self._write_shard(name, split)
        assert self._frames is not None  # noqa: S101  known since the first scene
        rows = {name: self._splits[name] for name in SPLITS if name in self._splits}
        content = {f"{name}_sha256": split.digest.hexdigest()[:_DIGITS_OF_CONTENT] for name, split in rows.items()}
        manifest = Manifest(
            scene_set=self.name,
            format=self._kind.name,
            frames=self._frames,
            cameras=CamerasRow.of(self.camera_fields, "radians"),
            # The checksums enter the dataset's fingerprint, because no source files distinguish the sets.
            origin=Origin(kind="imported", details={**self._details, **content}),
            splits={name: split.row() for name, split in rows.items()},
            tool=TOOL,
            geometry=self._geometry,
        )
        plan = Plan(folder=self._target, manifest=manifest, shards=tuple(self._shards), stored_bytes=0)
        publish(plan, self._done, self._work)
        put_in_place(self.folder)


class _SplitWriter:
    """Spool, counts and checksum of one split."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.scenes = 0
        self.shards = 0
        self.per_shard = 0
        self.digest = hashlib.sha256()

    def add(self, scene: Scene) -> None:
        for part in self.spool.add(scene):
            self.digest.update(part)
        self.scenes += 1

    def row(self) -> SplitRow:
        return SplitRow(
            scenes=self.scenes,
            scenes_per_shard=self.per_shard,
            expected_scenes=self.scenes,
            expected_files=0,
            shards=(),
            sources=(),
        )


def _checked_name(name: str) -> str:
    if not is_set_name(name):
        raise OptionError(
            f"name: found {name!r}, expected at most 64 lower-case letters, digits, - and _; pass another with name="
        )
    if is_in_catalogue(name):
        raise OptionError(f"name: found {name!r}, which is a set of the catalogue; pass another with name=")
    return name


def _checked_details(details: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(dict(details), allow_nan=False)
        atomic.json_bytes(value := json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"details: found a value that JSON cannot hold ({error}), expected JSON values") from error
    return dict(value)


def _checked_geometry(
    field_of_view: float | None, yaw_sign: int | None, depth_range: tuple[float, float] | None
) -> Geometry | None:
    given = {"field_of_view": field_of_view, "yaw_sign": yaw_sign, "depth_range": depth_range}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if field_of_view is None or yaw_sign is None or depth_range is None:
        raise OptionError(f"geometry: {' and '.join(missing)} missing, expected all of {', '.join(given)} or none")
    return Geometry(field_of_view=field_of_view, yaw_sign=yaw_sign, depth_range=depth_range)
