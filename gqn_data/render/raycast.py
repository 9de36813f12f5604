"""Ray caster for solids under one light, with an optional room around them.

Shadows are hard; supersampling averages the rays of a pixel. The world is right-handed with z up. Yaw grows
counter-clockwise seen from above, so the picture moves to the right as yaw grows. Pitch is positive upwards. All sums
are float64 in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.compiled import SOURCES, compiled, compiled_entry
from gqn_data.render.shapes import (
    BOUND,
    CAPSULE,
    CENTRE,
    COLOUR,
    CONE,
    MISSED,
    ROTATION,
    SIZES,
    Hit,
    Vector,
    intersect,
)
from gqn_data.render.surfaces import (
    FLOOR,
    SKY,
    SOLID,
    WALL,
    Light,
    Room,
    Textures,
    floor_uv,
    intersect_room,
    spot_light,
    texel,
    wall_uv,
)

FACET = math.pi / 7  # angle between neighbouring facets of a cone or capsule, by eye


class Scene(NamedTuple):
    """A scene to render.

    Attributes:
        kinds: int64 (solids,), from `shapes.pack`.
        rows: float64 (solids, shapes.COLUMNS), from `shapes.pack`.
        light: light of the scene.
        room: room around the solids, or NO_ROOM.
        textures: textures of the room, or NO_TEXTURES.
    """

    kinds: NDArray[np.int64]
    rows: NDArray[np.float64]
    light: Light
    room: Room
    textures: Textures


class Lens(NamedTuple):
    """Projection and sampling of a camera.

    Attributes:
        tangent: tangent of half the field of view, horizontally and vertically.
        samples: rays along one side of a pixel.
    """

    tangent: float
    samples: int


class View(NamedTuple):
    """Axes of a camera, as unit vectors in world coordinates."""

    forward: Vector
    right: Vector
    up: Vector


@compiled
def view_axes(yaw: float, pitch: float) -> View:
    """Return the axes of a camera that looks along (cos yaw cos pitch, sin yaw cos pitch, sin pitch)."""
    cos_yaw, sin_yaw, cos_pitch, sin_pitch = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    return View(
        (cos_yaw * cos_pitch, sin_yaw * cos_pitch, sin_pitch),
        (sin_yaw, -cos_yaw, 0.0),
        (-cos_yaw * sin_pitch, -sin_yaw * sin_pitch, cos_pitch),
    )


@compiled
def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled
def _along(start: Vector, direction: Vector, t: float) -> Vector:
    return start[0] + t * direction[0], start[1] + t * direction[1], start[2] + t * direction[2]


@compiled
def _from_centre(rows: NDArray[np.float64], i: int, point: Vector) -> Vector:
    return point[0] - rows[i, CENTRE], point[1] - rows[i, CENTRE + 1], point[2] - rows[i, CENTRE + 2]


@compiled
def _to_local(rows: NDArray[np.float64], i: int, v: Vector) -> Vector:
    k = ROTATION
    return (
        rows[i, k] * v[0] + rows[i, k + 1] * v[1] + rows[i, k + 2] * v[2],
        rows[i, k + 3] * v[0] + rows[i, k + 4] * v[1] + rows[i, k + 5] * v[2],
        rows[i, k + 6] * v[0] + rows[i, k + 7] * v[1] + rows[i, k + 8] * v[2],
    )


@compiled
def _to_world(rows: NDArray[np.float64], i: int, v: Vector) -> Vector:
    k = ROTATION
    return (
        rows[i, k] * v[0] + rows[i, k + 3] * v[1] + rows[i, k + 6] * v[2],
        rows[i, k + 1] * v[0] + rows[i, k + 4] * v[1] + rows[i, k + 7] * v[2],
        rows[i, k + 2] * v[0] + rows[i, k + 5] * v[1] + rows[i, k + 8] * v[2],
    )


@compiled
def intersect_solid(kinds: NDArray[np.int64], rows: NDArray[np.float64], i: int, o: Vector, d: Vector) -> Hit:
    """Intersect a ray in world coordinates with solid `i`; the normal is in the solid's local axes."""
    away = _from_centre(rows, i, o)
    # Most rays miss the bounding sphere, which is the cheapest test.
    along = _dot(away, d)
    if _dot(away, away) - along * along > rows[i, BOUND] * rows[i, BOUND]:
        return MISSED, 0.0, 0.0, 0.0
    sizes = (rows[i, SIZES], rows[i, SIZES + 1], rows[i, SIZES + 2])
    return intersect(kinds[i], _to_local(rows, i, away), _to_local(rows, i, d), sizes)


@compiled
def covered_pixels(ahead: float, aside: float, radius: float, tangent: float, size: int) -> tuple[int, int]:
    """Return the pixels [first, last) that a sphere can cover along one axis of the picture.

    Args:
        ahead: distance of the centre in front of the camera.
        aside: offset of the centre to the right, or down.
        radius: radius of the sphere.
        tangent: tangent of half the field of view.
        size: pixels along the axis.
    """
    distance = math.hypot(ahead, aside)
    if distance <= radius:
        return 0, size
    middle, spread = math.atan2(aside, ahead), math.asin(radius / distance)
    quarter = 0.5 * math.pi - 1e-3
    if middle - spread >= quarter or middle + spread <= -quarter:
        return 0, 0
    low = math.tan(max(middle - spread, -quarter)) / tangent
    high = math.tan(min(middle + spread, quarter)) / tangent
    first, last = math.floor((low + 1.0) * 0.5 * size), math.ceil((high + 1.0) * 0.5 * size)
    return int(min(max(first, 0.0), size)), int(min(max(last, 0.0), size))


@compiled
def _facet(normal: Vector, polar: bool) -> Vector:
    """Return the normal of the facet that a point of a round side lies on: cones and capsules of DeepMind are coarse.

    Args:
        normal: unit normal of the smooth side, in local axes.
        polar: whether the domes at the ends have facets along the axis, too.
    """
    across = math.hypot(normal[0], normal[1])
    if across < 1e-9:
        return normal
    bearing = (math.floor(math.atan2(normal[1], normal[0]) / FACET) + 0.5) * FACET
    up = normal[2]
    if polar and abs(up) > 1e-9:
        lean = (math.floor(math.asin(min(1.0, abs(up))) / FACET) + 0.5) * FACET
        up, across = math.copysign(math.sin(lean), up), math.cos(lean)
    return across * math.cos(bearing), across * math.sin(bearing), up


@compiled
def _towards_light(point: Vector, light: Light) -> tuple[Vector, float]:
    away = (light.position[0] - point[0], light.position[1] - point[1], light.position[2] - point[2])
    distance = math.sqrt(_dot(away, away))
    return (away[0] / distance, away[1] / distance, away[2] / distance), distance


def _build(sources: int) -> Callable[[Scene, NDArray[np.float64], Lens, NDArray[np.uint8]], None]:
    # `sources` is in the closure, and so in numba's cache key. All array code is in this one function, because numba
    # counts references at every call, which would double the time.
    @compiled_entry
    def cast_views(scene: Scene, cameras: NDArray[np.float64], lens: Lens, frames: NDArray[np.uint8]) -> None:
        if sources < 0:
            return
        kinds, rows, light, room = scene.kinds, scene.rows, scene.light, scene.room
        wall, floor, texels = scene.textures.wall, scene.textures.floor, scene.textures.texels
        count, size, samples = kinds.shape[0], frames.shape[1], lens.samples
        spans = np.empty((count, 4), dtype=np.int64)
        candidates = np.empty(count, dtype=np.int64)
        # Seen from the light, a solid hides only what lies in the cone around its bounding sphere: axis, and cosine
        # of the angle at the tip, with a margin for rounding.
        cones = np.empty((count, 4))
        for i in range(count):
            (x, y, z), away = _towards_light((rows[i, CENTRE], rows[i, CENTRE + 1], rows[i, CENTRE + 2]), light)
            sine = rows[i, BOUND] / away
            cones[i, 0], cones[i, 1], cones[i, 2] = x, y, z
            cones[i, 3] = math.sqrt(1.0 - sine * sine) - 1e-6 if sine < 1.0 else -2.0
        step = 2.0 * lens.tangent / (size * samples)
        scale = 255.0 / (samples * samples)
        for number in range(cameras.shape[0]):
            o = (cameras[number, 0], cameras[number, 1], cameras[number, 2])
            view = view_axes(cameras[number, 3], cameras[number, 4])
            f, r, u = view.forward, view.right, view.up
            for i in range(count):
                back = _from_centre(rows, i, o)
                ahead, aside, down, radius = -_dot(back, f), -_dot(back, r), _dot(back, u), rows[i, BOUND]
                spans[i, 0], spans[i, 1] = covered_pixels(ahead, aside, radius, lens.tangent, size)
                spans[i, 2], spans[i, 3] = covered_pixels(ahead, down, radius, lens.tangent, size)
            for pixel in range(size * size):
                row, column = pixel // size, pixel % size
                found = 0
                for i in range(count):
                    if spans[i, 0] <= column < spans[i, 1] and spans[i, 2] <= row < spans[i, 3]:
                        candidates[found] = i
                        found += 1
                red, green, blue = 0.0, 0.0, 0.0
                for sample in range(samples * samples):
                    right = (column * samples + sample % samples + 0.5) * step - lens.tangent
                    down = (row * samples + sample // samples + 0.5) * step - lens.tangent
                    length = math.sqrt(1.0 + right * right + down * down)
                    d = (
                        (f[0] + right * r[0] - down * u[0]) / length,
                        (f[1] + right * r[1] - down * u[1]) / length,
                        (f[2] + right * r[2] - down * u[2]) / length,
                    )

                    best, surface, solid, normal = MISSED, SKY, -1, (0.0, 0.0, 0.0)
                    for k in range(found):
                        t, nx, ny, nz = intersect_solid(kinds, rows, candidates[k], o, d)
                        if t < best:
                            best, surface, solid, normal = t, SOLID, candidates[k], (nx, ny, nz)
                    if room.half > 0.0:
                        t, part, part_normal = intersect_room(o, d, room)
                        if t < best:
                            best, surface, normal = t, part, part_normal
                    if surface == SKY:
                        red, green, blue = red + room.sky[0], green + room.sky[1], blue + room.sky[2]
                        continue
                    if surface == SOLID:
                        if kinds[solid] == CONE or kinds[solid] == CAPSULE:
                            normal = _facet(normal, kinds[solid] == CAPSULE)
                        normal = _to_world(rows, solid, normal)

                    point = _along(o, d, best)
                    to_light, distance = _towards_light(point, light)
                    lit = max(0.0, _dot(normal, to_light))
                    # Lift the point off its surface, or rounding would put it in its own shadow.
                    if lit > 0.0 and light.shadows:
                        lifted = _along(point, normal, 1e-6)
                        for k in range(count):
                            cosine = to_light[0] * cones[k, 0] + to_light[1] * cones[k, 1] + to_light[2] * cones[k, 2]
                            if cosine < cones[k, 3]:
                                continue
                            if intersect_solid(kinds, rows, k, lifted, to_light)[0] < distance:
                                lit = 0.0
                                break

                    sheen = 0.0
                    diffuse = light.wall_diffuse if surface == WALL else light.diffuse
                    strength = light.ambient + light.fill * max(0.0, -_dot(normal, f)) + diffuse * lit
                    if surface == FLOOR:
                        strength = light.floor_ambient + (spot_light(light, to_light) if lit > 0.0 else 0.0)
                        uv, footprint = floor_uv(room, point, best * step, -d[2])
                        colour = texel(floor, texels, uv, footprint)
                    elif surface == WALL:
                        uv, footprint = wall_uv(room, point, normal, best * step)
                        colour = texel(wall, texels, uv, footprint)
                    else:
                        colour = (rows[solid, COLOUR], rows[solid, COLOUR + 1], rows[solid, COLOUR + 2])
                        sheen = light.sheen * lit
                    red += min(1.0, colour[0] * strength + sheen)
                    green += min(1.0, colour[1] * strength + sheen)
                    blue += min(1.0, colour[2] * strength + sheen)
                frames[number, row, column, 0] = int(red * scale + 0.5)
                frames[number, row, column, 1] = int(green * scale + 0.5)
                frames[number, row, column, 2] = int(blue * scale + 0.5)

    return cast_views


# cast_views(scene, cameras, lens, frames) renders into `frames`, uint8 (views, size, size, 3).
# cameras: float64 (views, 5): x, y, z, yaw, pitch, in world units and radians.
cast_views = _build(SOURCES)
