"""Scenes of one's own: written from Python, as arrays or JPEG bytes, into the same datasets that `convert` writes.

    with SceneWriter("data/zarr/my_scenes") as writer:
        writer.add(frames, cameras)    # uint8 (views, height, width, 3), or the JPEG bytes of each view

Nothing is a dataset before the block has ended without an error; what a killed process left is replaced by the next.
Imports `converting`, `formats`, `manifest`, `plan`, `scene_checks`, `spool`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gqn_data.convert.destination import WORK_FOLDER, complete, working_in
from gqn_data.convert.journal import Done, WorkFolder
from gqn_data.convert.plan import SHARD_BYTES, Options, Plan, target_frames
from gqn_data.convert.scene_checks import SceneChecker, encoding_of
from gqn_data.convert.spool import Spool
from gqn_data.errors import DestinationError, OptionError, UnknownName
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath, parse_path
from gqn_data.schema.catalog import CAMERA_FIELDS, SPLITS, Split, is_in_catalogue, is_set_name
from gqn_data.schema.manifest import MANIFEST_FILE, CamerasRow, Encoding, FramesRow, Manifest, SplitRow
from gqn_data.schema.origin import Origin
from gqn_data.schema.scene import Encoded, Scene
from gqn_data.version import TOOL

_DIGITS_OF_CONTENT = 32  # of the SHA-256 of a split's scenes: enough to tell any two sets apart


class SceneWriter:
    """Writes scenes into a dataset, one after another; a context manager.

    Scenes are kept in a temporary file until they fill a shard, so memory does not grow with the set. Every scene must
    look like the first: as many views, as large, arrays or JPEG bytes as there.

    Args:
        path: the folder of the dataset to be; `data/zarr/my_scenes` by custom. A path, or the URL of an object store.
        name: of the scene set: small letters, digits, - and _; None for the folder's name.
        format: the container, as in `gqn-data convert --format`.
        camera_fields: the names of a camera's numbers, in order; angles in radians.
        frames: `jpeg` or `raw`; None for the usual way: JPEG bytes stay, and arrays stay decoded.
        jpeg_quality: 1 to 100, to make JPEGs of arrays.
        details: what the manifest shall say of where the scenes come from; JSON values.
        scenes_per_shard: None for as many as `shard_bytes` hold.
        shard_bytes: about so many bytes a shard.
        overwrite: replace a dataset that is there, when the first shard of the new one is written.

    Raises:
        OptionError: a name or a value that no dataset could have.
        UnknownName: no container of that name.
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
    ) -> None:
        self.folder: AnyPath = parse_path(path)
        self.name = _checked_name(name or self.folder.absolute().name)
        self._checker = SceneChecker(camera_fields)
        self._options = Options(formats=(format,), frames=frames, jpeg_quality=jpeg_quality, shard_bytes=shard_bytes)
        self._kind = FORMATS[format]
        if scenes_per_shard is not None and scenes_per_shard < 1:
            raise OptionError(f"scenes_per_shard is {scenes_per_shard}, expected 1 or more")
        self._per_shard = scenes_per_shard
        self._details = _checked_details(details or {})
        self._overwrite = overwrite
        self._work = WorkFolder(self.folder / WORK_FOLDER / "shards")  # below the lock
        self._held = contextlib.ExitStack()
        self._open = False
        self._begun = False
        self._failed = False
        self._frames: FramesRow | None = None
        self._splits: dict[Split, _SplitWriter] = {}
        self._places: list[ShardLocation] = []
        self._done: Done = {}

    @property
    def camera_fields(self) -> tuple[str, ...]:
        """The names of a camera's numbers."""
        return self._checker.camera_fields

    def __enter__(self) -> Self:
        if self._open or self._done:
            raise OptionError(f"{self.folder}: a SceneWriter writes one dataset, once; make another")
        if (self.folder / MANIFEST_FILE).exists() and not self._overwrite:
            raise DestinationError(
                f"{self.folder}: holds a dataset; replace it with overwrite=True, or write elsewhere"
            )
        self._held.enter_context(working_in(self.folder / WORK_FOLDER))
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._open = False
        with self._held:
            whole = False
            try:
                if kind is None:
                    self._finish()
                    whole = True
            finally:
                for split in self._splits.values():
                    split.spool.close()
                if not whole and self._begun:
                    self._work.abandon(self.folder)

    def add(self, frames: NDArray[np.uint8] | Sequence[Encoded], cameras: ArrayLike, split: Split = "train") -> int:
        """Adds a scene; returns its number in its split.

        Args:
            frames: uint8 (views, height, width, 3), RGB; or the JPEG bytes of each view, which are kept as they are.
            cameras: (views, camera numbers), taken as float32.
            split: `train` or `test`.

        Raises:
            OptionError: not as the scenes before, or what no scene can be.
            CorruptFrame: JPEG bytes that are none, or of another size.
            NoSpace: the disk is full; nothing is left of the dataset.
        """
        if not self._open:
            raise OptionError("scenes are added inside of `with SceneWriter(...) as writer:`")
        if self._failed:
            raise OptionError(f"{self.folder}: a shard could not be written before; begin anew")
        if split not in SPLITS:
            raise UnknownName("split", str(split), SPLITS)
        here = self._splits.get(split)
        number = 0 if here is None else here.scenes
        scene, layout = self._checker.checked(frames, cameras, f"scene {number} of {split}")
        if self._frames is None:
            have = FramesRow(encoding=encoding_of(scene), views=layout.views, height=layout.height, width=layout.width)
            self._frames = target_frames(have, self._kind, self._options)
            self._checker.settle(scene, layout)
        if here is None:
            work = self.folder / WORK_FOLDER
            on_disk = work if isinstance(work, Path) else None
            spool = Spool(layout, encoded=scene.encoded is not None, folder=on_disk)
            here = self._splits[split] = _SplitWriter(spool)
        try:
            here.take(scene)
            if self._is_full(here):
                here.per_shard = here.spool.count
                self._write_shard(split, here)
        except BaseException:
            self._failed = True
            raise
        return number

    def _is_full(self, split: _SplitWriter) -> bool:
        count = split.spool.count
        if self._per_shard or split.per_shard:
            return count >= (self._per_shard or split.per_shard)
        # The size of a shard has two digits and zeros: is this the last such number that fits?
        unit = int(10 ** max(0, len(str(count)) - 2))
        if count % unit:
            return False
        assert self._frames is not None  # noqa: S101  known since the first scene
        more = count + unit
        taken = split.spool.bytes * more // count
        if not split.spool.encoded and self._frames.encoding == "jpeg":
            taken //= 4  # as `plan` reckons
        stored = self._kind.stored_bytes(more, taken, split.spool.layout, self._frames.encoding)
        return stored > self._options.shard_bytes

    def _write_shard(self, name: Split, split: _SplitWriter) -> None:
        assert self._frames is not None  # noqa: S101  known since the first scene
        at = ShardLocation(
            folder=self.folder,
            split=name,
            number=split.shards,
            first_scene=split.scenes - split.spool.count,
            scenes=split.spool.count,
            scenes_per_shard=split.per_shard,
            frames=self._frames,
            layout=split.spool.layout,
        )
        if not self._begun:
            # From here on what was there is gone; another writer's remains are of another name, so they go, too.
            self._begun = True
            self._work.begin_unplanned(self.folder, {"scene writer": secrets.token_hex(8)})
        self._work.begin_shard(at, self._kind.names(at))
        row = self._kind.write_shard(at, split.spool.scenes())
        self._work.mark(at, row)
        self._done[name, at.number] = row
        self._places.append(at)
        split.shards += 1
        split.spool.clear()

    def _finish(self) -> None:
        """Writes what is left, and then the manifest: from here on the folder is a dataset."""
        if self._failed:
            raise OptionError(f"{self.folder}: a shard could not be written before; nothing is kept")
        if not self._splits:
            raise OptionError(f"{self.folder}: no scene was added; a dataset has one or more")
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
            # The checksums are part of the dataset's fingerprint: there are no source files to tell sets apart.
            origin=Origin(kind="imported", details={**self._details, **content}),
            splits={name: split.row() for name, split in rows.items()},
            tool=TOOL,
        )
        plan = Plan(folder=self.folder, manifest=manifest, places=tuple(self._places), stored_bytes=0)
        complete(plan, self._done, self._work)


class _SplitWriter:
    """One split on its way into shards."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.scenes = 0
        self.shards = 0
        self.per_shard = 0
        self.digest = hashlib.sha256()

    def take(self, scene: Scene) -> None:
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
        raise OptionError(f"{name!r} is no name of a scene set: small letters, digits, - and _, 64 at most; say name=")
    if is_in_catalogue(name):
        raise OptionError(f"{name!r} is a set of the catalogue; give scenes of your own another name with name=")
    return name


def _checked_details(details: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(dict(details), allow_nan=False)
        atomic.json_bytes(value := json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"details cannot be written as JSON ({error})") from error
    return dict(value)
