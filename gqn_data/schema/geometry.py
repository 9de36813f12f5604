"""Geometry of the scene sets: lens, direction of view and depth range, each with its source.

These facts belong to a scene set *and* its origin: a renderer version may have used another lens than DeepMind's.
A manifest of schema 2 holds them; for an older manifest they follow from its scene set and origin. Scenes of
other sets are unknown until `SceneWriter` is given their geometry.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from gqn_data.errors import OptionError
from gqn_data.schema.origin import Origin

DEPTHS = (1e-12, 1e12)  # models divide by them, and square them, in float32

_Value = TypeVar("_Value", float, int, tuple[float, float])


@dataclass(frozen=True)
class Fact(Generic[_Value]):
    """One fact of the geometry of a set.

    Attributes:
        value: the value.
        source: how it is known.
        settled: False for a guess, or a measurement on few scenes.
    """

    value: _Value
    source: str
    settled: bool = True


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How the cameras of a dataset see its scenes.

    A camera at (x, y, z) with raw yaw and pitch looks along
    (cos yaw cos pitch, yaw_sign sin yaw cos pitch, sin pitch). The world is right-handed with z up.

    Attributes:
        field_of_view: angle between the edges of a frame, across and up, in degrees.
        yaw_sign: 1 if yaw grows counter-clockwise seen from above, -1 if clockwise.
        depth_range: least and largest depth of surfaces along the optical axis, in units of the raw positions.
    """

    field_of_view: float
    yaw_sign: int
    depth_range: tuple[float, float]

    def __post_init__(self) -> None:
        """Raise `OptionError` unless the values are possible."""
        if not isinstance(self.depth_range, tuple) or len(self.depth_range) != 2:
            raise OptionError(f"depth_range is {self.depth_range!r}, expected (least, largest)")
        numbers = (self.field_of_view, *self.depth_range)
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers):
            raise OptionError(f"field_of_view and depth_range are {numbers!r}, expected numbers")
        if not 0 < self.field_of_view < 180:
            raise OptionError(f"field_of_view is {self.field_of_view!r}, expected degrees between 0 and 180")
        if isinstance(self.yaw_sign, bool) or self.yaw_sign not in (1, -1):
            raise OptionError(f"yaw_sign is {self.yaw_sign!r}, expected 1 (counter-clockwise from above) or -1")
        low, high = DEPTHS
        if not low <= self.depth_range[0] < self.depth_range[1] <= high:
            raise OptionError(
                f"depth_range is {self.depth_range!r}, expected (least, largest), between {low:g} and {high:g}"
            )

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, in the order of the fields."""
        return {**asdict(self), "depth_range": list(self.depth_range)}

    @staticmethod
    def from_json(value: Any) -> Geometry:
        """Parse the result of `to_json`.

        Raises:
            OptionError: a value is impossible.
            KeyError: a key is missing.
            TypeError: the value, or one in it, is of the wrong type.
        """
        if set(value) != {"field_of_view", "yaw_sign", "depth_range"}:
            raise KeyError(f"keys {sorted(value)}")
        return Geometry(
            field_of_view=value["field_of_view"],
            yaw_sign=value["yaw_sign"],
            depth_range=tuple(value["depth_range"]),
        )


@dataclass(frozen=True, kw_only=True)
class GeometryFacts:
    """The facts of one set and origin: the fields of `Geometry`, each with its source."""

    field_of_view: Fact[float]
    yaw_sign: Fact[int]
    depth_range: Fact[tuple[float, float]]

    @property
    def geometry(self) -> Geometry:
        """The values."""
        return Geometry(
            field_of_view=self.field_of_view.value,
            yaw_sign=self.yaw_sign.value,
            depth_range=self.depth_range.value,
        )


_RING_FRAMES = "fitted to 48 real frames of the ring, whose cameras follow from their walls"
_FREE_FRAMES = "fitted to 20 real frames of free cameras by the upper edge of their walls"
_MAZE_RECORDS = "fitted to 12 real records with exact cameras (benchmarks/maze_fit.py)"
_OBJECT_RECORDS = "measured on 2 real records with exact cameras (docs/rendering.md)"
_ROOM_UNITS = "the room is 7 units wide and a raw unit is 3.25 of them"

_FREE_ROOMS = GeometryFacts(
    field_of_view=Fact(50.0, _FREE_FRAMES),
    yaw_sign=Fact(1, _FREE_FRAMES),
    depth_range=Fact((0.1, 3.05), f"{_ROOM_UNITS}; objects keep 0.1 clear, a diagonal is 3.05"),
)


def _shepard_metzler(reach: float, *, settled: bool) -> GeometryFacts:
    """Return the facts of a set whose objects reach `reach` raw units from the centre of the sphere of cameras."""
    return GeometryFacts(
        field_of_view=Fact(22.5, f"{_OBJECT_RECORDS}: 20 to 25", settled=False),
        yaw_sign=Fact(-1, "positions and yaws of 39 real cameras", settled=settled),
        depth_range=Fact(
            (round(10 / 3 - reach, 2), round(10 / 3 + reach, 2)),
            "cameras at 10/3 in all records seen; the longest chain of cubes",
            settled=settled,
        ),
    )


# DeepMind's frames, and ours of the current renderer version.
_FACTS: dict[str, GeometryFacts] = {
    "jaco": GeometryFacts(
        field_of_view=Fact(50.0, "guess: as in the rooms", settled=False),
        yaw_sign=Fact(1, "guess: as in the rooms", settled=False),
        depth_range=Fact((0.15, 2.9), "two real frames: cameras about the arm, in a room of 7 units", settled=False),
    ),
    "mazes": GeometryFacts(
        field_of_view=Fact(90.0, _MAZE_RECORDS),
        yaw_sign=Fact(1, _MAZE_RECORDS),
        depth_range=Fact((0.03, 0.8), "cells of 0.1, corridors and rooms of a grid of 7 by 7"),
    ),
    "rooms_free_camera_no_object_rotations": _FREE_ROOMS,
    "rooms_free_camera_with_object_rotations": _FREE_ROOMS,
    "rooms_ring_camera": GeometryFacts(
        field_of_view=Fact(50.0, _RING_FRAMES),
        yaw_sign=Fact(1, _RING_FRAMES),
        depth_range=Fact((0.35, 2.4), f"{_ROOM_UNITS}; objects stay within 0.7 of the middle"),
    ),
    "shepard_metzler_5_parts": _shepard_metzler(0.55, settled=True),
    "shepard_metzler_7_parts": _shepard_metzler(0.75, settled=False),
}

# Renderer versions 1 and 2 drew Shepard-Metzler objects with the lens and the sign of the rooms, from a unit sphere.
_RENDERED_UNTIL_2 = GeometryFacts(
    field_of_view=Fact(50.0, "our renderer, versions 1 and 2"),
    yaw_sign=Fact(1, "our renderer, versions 1 and 2"),
    depth_range=Fact((0.6, 1.4), "our renderer, versions 1 and 2: cameras on a unit sphere, 7.5 cube edges away"),
)
RENDERED_FACTS: dict[tuple[str, int], GeometryFacts] = {
    (name, version): _RENDERED_UNTIL_2
    for name in ("shepard_metzler_5_parts", "shepard_metzler_7_parts")
    for version in (1, 2)
}


def facts_of(scene_set: str, origin: Origin) -> GeometryFacts | None:
    """Return the facts of a set with their sources; None if they are unknown.

    Args:
        scene_set: name of the set in the catalogue.
        origin: origin of the scenes. Imported scenes of a set of the catalogue are taken for DeepMind's.
    """
    if origin.kind == "rendered":
        version = origin.details.get("version")
        if isinstance(version, int) and (old := RENDERED_FACTS.get((scene_set, version))) is not None:
            return old
    return _FACTS.get(scene_set)


def geometry_of(scene_set: str, origin: Origin) -> Geometry | None:
    """Return the geometry of a set and origin; None if it is unknown. See `facts_of`."""
    facts = facts_of(scene_set, origin)
    return None if facts is None else facts.geometry
