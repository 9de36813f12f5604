"""Where scenes come from: `source.json`, carried by every raw folder and by every manifest.

Two origins are never mixed in one folder, so nobody mistakes rendered scenes for DeepMind's.
Imports `errors` and `json_files`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from gqn_data.errors import OriginError
from gqn_data.io import strict_json
from gqn_data.io.paths import AnyPath

Kind = Literal["deepmind", "rendered", "imported"]
SOURCE_FILE = "source.json"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the scenes of a folder come from.

    Attributes:
        kind: `deepmind` (their bucket), `rendered` (by this project), or `imported` (anything else).
        details: what tells two origins of one kind apart: the bucket's address, or seed, renderer's version
            and parameters. JSON values only.
    """

    kind: Kind
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The origin as JSON."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any, where: object) -> Origin:
        """The origin that `to_json` wrote.

        Raises:
            OriginError: it says something that this version does not know.
        """
        known = get_args(Kind)
        if not isinstance(value, dict) or value.get("kind") not in known:
            raise OriginError(f"{where}: expected a kind of origin, one of {', '.join(known)}; found {value!r}")
        details = value.get("details", {})
        if not isinstance(details, dict):
            raise OriginError(f"{where}: the details of an origin are {type(details).__name__}, expected a table")
        unknown = sorted(set(value) - {"kind", "details"})
        if unknown:
            raise OriginError(f"{where}: {', '.join(unknown)[:100]!r} is no part of an origin; expected kind, details")
        return Origin(kind=value["kind"], details=details)


def read_origin(folder: AnyPath) -> Origin:
    """The origin of a raw folder; `imported` where it does not say.

    Raises:
        OriginError: `source.json` is there and cannot be understood.
    """
    path = folder / SOURCE_FILE
    if not path.exists():
        return Origin(kind="imported")
    try:
        value = strict_json.read_note(path, needs_checksum=False)
    except ValueError as error:
        raise OriginError(
            f"{path}: damaged, or changed by hand ({error}); write it anew, without its sha256 if you changed it"
        ) from error
    return Origin.from_json(value, path)


def claim(folder: Path, origin: Origin) -> None:
    """Marks a raw folder as holding scenes of `origin`, before the first of them is written.

    Raises:
        OriginError: the folder holds scenes of another origin, or scenes that do not say theirs.
    """
    path = folder / SOURCE_FILE
    if path.exists():
        found = read_origin(folder)
        if found != origin:
            raise OriginError(
                f"{folder}: holds scenes of another origin ({_short(found)}; these are {_short(origin)}); "
                "two origins are not mixed: write to another data root, or remove that folder"
            )
        return
    if any(folder.glob("*/*.tfrecord")) or any(folder.glob("*.tfrecord")):
        raise OriginError(
            f"{folder}: holds TFRecords of unknown origin (no {SOURCE_FILE}); scenes that are {_short(origin)} "
            "are not mixed with them: write to another data root"
        )
    strict_json.write_note(path, origin.to_json())


def _short(origin: Origin) -> str:
    details = ", ".join(f"{key} {value}" for key, value in origin.details.items())
    return f"{origin.kind}: {details}" if details else origin.kind
