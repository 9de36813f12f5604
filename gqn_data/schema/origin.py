"""Origin of scenes, stored in the `source.json` of a raw folder and in every manifest.

Two origins are never mixed in one folder, so rendered scenes are not mistaken for DeepMind's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from gqn_data.errors import OriginError
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath

Kind = Literal["deepmind", "rendered", "imported"]
SOURCE_FILE = "source.json"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Origin of the scenes of a folder.

    Attributes:
        kind: `deepmind` (their bucket), `rendered` (by this project), or `imported` (anything else).
        details: what distinguishes origins of one kind, as JSON values: the bucket, or the seed, parameters and
            version of the renderer.
    """

    kind: Kind
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Convert the origin to JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any, where: object) -> Origin:
        """Parse the result of `to_json`.

        Args:
            value: JSON value.
            where: file that contains it, for messages.

        Raises:
            OriginError: the value is invalid, or unknown to this version.
        """
        known = get_args(Kind)
        if not isinstance(value, dict) or value.get("kind") not in known:
            raise OriginError(f"{where}: origin is {repr(value)[:100]}, expected a kind of {', '.join(known)}")
        details = value.get("details", {})
        if not isinstance(details, dict):
            raise OriginError(f"{where}: origin details are {type(details).__name__}, expected a JSON object")
        unknown = sorted(set(value) - {"kind", "details"})
        if unknown:
            raise OriginError(f"{where}: origin has the keys {', '.join(unknown)[:100]!r}, expected kind and details")
        return Origin(kind=value["kind"], details=details)


def read_origin(folder: AnyPath) -> Origin:
    """Read the origin of a raw folder; `imported` if it does not have a `source.json`.

    Raises:
        OriginError: `source.json` is invalid.
    """
    path = folder / SOURCE_FILE
    if not atomic.is_present(path):
        return Origin(kind="imported")
    try:
        value = strict_json.read_note(path, needs_checksum=False)
    except ValueError as error:
        raise OriginError(
            f"{path}: {error}. The file is damaged or was edited; if you edited it, delete its sha256 entry"
        ) from error
    return Origin.from_json(value, path)


def claim(folder: Path, origin: Origin) -> None:
    """Record the origin of a raw folder, before its first scene is written.

    Raises:
        OriginError: the folder contains scenes of another or an unknown origin.
    """
    path = folder / SOURCE_FILE
    if atomic.is_present(path):
        found = read_origin(folder)
        if found != origin:
            raise OriginError(
                f"{folder}: contains scenes of another origin: {_short(found)}, expected {_short(origin)}; "
                "two origins are not mixed. Write to another data root, or remove that folder"
            )
        return
    if any(folder.glob("*/*.tfrecord")) or any(folder.glob("*.tfrecord")):
        raise OriginError(
            f"{folder}: contains TFRecords of unknown origin ({SOURCE_FILE} is missing), expected {_short(origin)}; "
            "two origins are not mixed. Write to another data root"
        )
    strict_json.write_note(path, origin.to_json())


def _short(origin: Origin) -> str:
    details = ", ".join(f"{key} {value}" for key, value in origin.details.items())
    return f"{origin.kind} ({details})" if details else origin.kind
