"""Solids, and the intersection of a ray with each kind.

`pack` turns `Solid` objects into rows of numbers, which numba reads. Every solid is convex, and rays start outside
it. To add a kind, add a constant, a function `intersect_<kind>`, and a case in `intersect` and `_bounding_radius`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.compiled import compiled

SPHERE, BOX, CYLINDER, CAPSULE, CONE, ICOSAHEDRON, BAR = range(7)

# Columns of a row: centre, rotation from world to local axes (row-major), three sizes, bounding radius, colour.
CENTRE, ROTATION, SIZES, BOUND, COLOUR, COLUMNS = 0, 3, 12, 15, 16, 19

MISSED = math.inf

Vector = tuple[float, float, float]
# (t, nx, ny, nz): distance to the point of entry, or MISSED, and the outward unit normal there, in local axes.
Hit = tuple[float, float, float, float]

_MISS: Hit = (MISSED, 0.0, 0.0, 0.0)
_EPSILON = 1e-12


def _icosahedron_normals() -> NDArray[np.float64]:
    """Return ten face normals (10, 3), one per pair of opposite faces, of an icosahedron on one vertex."""
    high, wide = 1 / math.sqrt(5), 2 / math.sqrt(5)  # the upper ring of vertices, for circumradius 1
    step = 2 * math.pi / 5
    upper = [(wide * math.cos(k * step), wide * math.sin(k * step), high) for k in range(5)]
    lower = [(wide * math.cos((k + 0.5) * step), wide * math.sin((k + 0.5) * step), -high) for k in range(5)]
    faces = []
    for k in range(5):
        faces.append([(0.0, 0.0, 1.0), upper[k], upper[(k + 1) % 5]])
        faces.append([upper[k], upper[(k + 1) % 5], lower[k]])
    centres = np.array(faces).mean(axis=1)
    return np.asarray(centres / np.linalg.norm(centres, axis=1, keepdims=True))


ICOSAHEDRON_NORMALS = _icosahedron_normals()
# Inradius over circumradius, from the regular icosahedron: phi^2 / (2 sqrt 3) over sqrt(phi sqrt 5) / 2.
ICOSAHEDRON_INRADIUS = math.sqrt((5 + 2 * math.sqrt(5)) / 15)


# Extra length of a bar on its outer side, per unit of radius: three bars meet at 60 degrees.
MITRE = math.sqrt(3)


def _bounding_radius(kind: int, a: float, b: float, c: float) -> float:
    if kind == BOX:
        return math.sqrt(a * a + b * b + c * c)
    if kind in (CYLINDER, CONE):
        return math.hypot(a, b)
    if kind == BAR:
        return math.hypot(a, b + MITRE * a)
    return a + b if kind == CAPSULE else a


_UPRIGHT = np.eye(3)


@dataclass(frozen=True, kw_only=True)
class Solid:
    """One solid.

    Attributes:
        kind: one of the constants above.
        centre: centre of the extent, in world coordinates.
        sizes: sphere (radius,); box (half extents along x, y, z); cylinder and cone (radius, half height);
            capsule (radius, half length of the axis); icosahedron (circumradius,); bar (radius, half length of the
            axis). The axis is local z. A bar is one round side of an open triangle, mitred at both ends to meet the
            other two; local y points out of the triangle.
        colour: RGB, 0 to 1.
        rotation: (3, 3), the local axes as rows, in world coordinates.
    """

    kind: int
    centre: Vector
    sizes: tuple[float, ...]
    colour: Vector
    rotation: NDArray[np.float64] = field(default_factory=lambda: _UPRIGHT)

    @property
    def bounding_radius(self) -> float:
        """Radius of the bounding sphere about the centre."""
        a, b, c = (*self.sizes, 0.0, 0.0)[:3]
        return _bounding_radius(self.kind, a, b, c)


def pack(solids: Sequence[Solid]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the kinds (solids,) and rows (solids, COLUMNS) of some solids, as the ray caster reads them."""
    kinds = np.array([solid.kind for solid in solids], dtype=np.int64)
    rows = np.zeros((len(solids), COLUMNS))
    for row, solid in zip(rows, solids):
        row[CENTRE:ROTATION] = solid.centre
        row[ROTATION:SIZES] = solid.rotation.ravel()
        row[SIZES : SIZES + len(solid.sizes)] = solid.sizes
        row[BOUND] = solid.bounding_radius
        row[COLOUR:COLUMNS] = solid.colour
    return kinds, rows


def rotation_to(axis: Sequence[float]) -> NDArray[np.float64]:
    """Return a rotation (3, 3) whose local z axis is `axis`."""
    z = np.asarray(axis, dtype=np.float64)
    z = z / np.linalg.norm(z)
    other = np.array([1.0, 0.0, 0.0]) if abs(z[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    x = _cross(other, z)
    x /= np.linalg.norm(x)
    return np.stack([x, _cross(z, x), z])


def _cross(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    # numpy's takes 30 times as long for one vector: half of the time to sample a scene of jaco.
    (a, b, c), (d, e, f) = one.tolist(), other.tolist()
    return np.array([b * f - c * e, c * d - a * f, a * e - b * d])


# The functions below work in local axes: `o` is the origin of the ray, `d` its unit direction.


@compiled
def intersect_sphere(o: Vector, d: Vector, radius: float) -> Hit:
    """Intersect a ray with a sphere about the origin."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    along = ox * dx + oy * dy + oz * dz
    inside = along * along - (ox * ox + oy * oy + oz * oz - radius * radius)
    if inside <= 0.0:
        return _MISS
    t = -along - math.sqrt(inside)
    if t <= 0.0:
        return _MISS
    return t, (ox + t * dx) / radius, (oy + t * dy) / radius, (oz + t * dz) / radius


@compiled
def _slab(o: float, d: float, half: float) -> tuple[float, float]:
    """Return the interval (near, far) of a ray between planes at -half and half; near > far if it misses."""
    if abs(d) < _EPSILON:
        return (-MISSED, MISSED) if abs(o) <= half else (MISSED, -MISSED)
    near, far = (-half - o) / d, (half - o) / d
    return (near, far) if near < far else (far, near)


@compiled
def intersect_box(o: Vector, d: Vector, half: Vector) -> Hit:
    """Intersect a ray with a box of half extents `half`."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    near_x, far_x = _slab(ox, dx, half[0])
    near_y, far_y = _slab(oy, dy, half[1])
    near_z, far_z = _slab(oz, dz, half[2])
    t = max(near_x, near_y, near_z)
    if t <= 0.0 or t > min(far_x, far_y, far_z):
        return _MISS
    if t == near_x:
        return t, -math.copysign(1.0, dx), 0.0, 0.0
    if t == near_y:
        return t, 0.0, -math.copysign(1.0, dy), 0.0
    return t, 0.0, 0.0, -math.copysign(1.0, dz)


@compiled
def intersect_cylinder(o: Vector, d: Vector, radius: float, half: float) -> Hit:
    """Intersect a ray with a cylinder with flat ends at z = -half and half."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    near, far = _slab(oz, dz, half)
    a = dx * dx + dy * dy
    c = ox * ox + oy * oy - radius * radius
    side_near, side_far = -MISSED, MISSED
    if a < _EPSILON:
        if c > 0.0:
            return _MISS
    else:
        b = ox * dx + oy * dy
        inside = b * b - a * c
        if inside <= 0.0:
            return _MISS
        root = math.sqrt(inside)
        side_near, side_far = (-b - root) / a, (-b + root) / a
    t = max(near, side_near)
    if t <= 0.0 or t > min(far, side_far):
        return _MISS
    if near > side_near:
        return t, 0.0, 0.0, -math.copysign(1.0, dz)
    return t, (ox + t * dx) / radius, (oy + t * dy) / radius, 0.0


@compiled
def intersect_capsule(o: Vector, d: Vector, radius: float, half: float) -> Hit:
    """Intersect a ray with a capsule: all points within `radius` of the axis from z = -half to half."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    a = dx * dx + dy * dy
    if a >= _EPSILON:
        b = ox * dx + oy * dy
        inside = b * b - a * (ox * ox + oy * oy - radius * radius)
        if inside <= 0.0:
            return _MISS
        t = (-b - math.sqrt(inside)) / a
        z = oz + t * dz
        if abs(z) <= half:
            if t <= 0.0:
                return _MISS
            return t, (ox + t * dx) / radius, (oy + t * dy) / radius, 0.0
        end = math.copysign(half, z)
    else:
        end = -math.copysign(half, dz)
    # The ray enters the infinite cylinder past this end, so it can enter the capsule only through the cap.
    return intersect_sphere((ox, oy, oz - end), d, radius)


@compiled
def intersect_cone(o: Vector, d: Vector, radius: float, half: float) -> Hit:
    """Intersect a ray with a cone: base of radius `radius` at z = -half, apex at z = half."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    if oz < -half and dz > 0.0:
        t = (-half - oz) / dz
        x, y = ox + t * dx, oy + t * dy
        if x * x + y * y <= radius * radius:
            return t, 0.0, 0.0, -1.0
    slope = radius / (2.0 * half)
    below = half - oz  # height of the apex above the origin of the ray; x^2 + y^2 = (slope below)^2 on the surface
    a = dx * dx + dy * dy - slope * slope * dz * dz
    b = ox * dx + oy * dy + slope * slope * below * dz
    c = ox * ox + oy * oy - slope * slope * below * below
    inside = b * b - a * c
    # For a ray through the apex `inside` is zero, and rounding may make it negative.
    if -_EPSILON * b * b <= inside < 0.0:
        inside = 0.0
    if inside < 0.0 or (c <= 0.0 and abs(oz) <= half):
        return _MISS
    # Of the two intersections with the double cone, this is the one at which the ray can enter from outside. It is
    # the nearer one if both are on one nappe; if a < 0 it is the farther one, which a falling ray meets below.
    t = (-b - math.sqrt(inside)) / a if abs(a) >= _EPSILON else -c / (2.0 * b)
    if t <= 0.0 or abs(oz + t * dz) > half + _EPSILON:
        return _MISS
    x, y = ox + t * dx, oy + t * dy
    across = math.sqrt(x * x + y * y)
    if across < _EPSILON:  # the normal is undefined at the apex
        return t, 0.0, 0.0, 1.0
    scale = 1.0 / math.sqrt(1.0 + slope * slope)
    return t, x / across * scale, y / across * scale, slope * scale


@compiled
def intersect_bar(o: Vector, d: Vector, radius: float, half: float) -> Hit:
    """Intersect a ray with a cylinder that is cut at |z| = half + MITRE y."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    near, far, side = -MISSED, MISSED, 0.0
    for sign in (1.0, -1.0):
        over, faster = sign * oz - MITRE * oy - half, sign * dz - MITRE * dy  # distance past the cut, and its rate
        if abs(faster) < _EPSILON:
            if over > 0.0:
                return _MISS
        elif faster > 0.0:
            far = min(far, -over / faster)
        elif -over / faster > near:
            near, side = -over / faster, sign
    a = dx * dx + dy * dy
    b, c = ox * dx + oy * dy, ox * ox + oy * oy - radius * radius
    round_near = -MISSED
    if a >= _EPSILON:
        inside = b * b - a * c
        if inside <= 0.0:
            return _MISS
        root = math.sqrt(inside)
        round_near, far = (-b - root) / a, min(far, (-b + root) / a)
    elif c > 0.0:
        return _MISS
    t = max(near, round_near)
    if t <= 0.0 or t > far:
        return _MISS
    if near > round_near:
        return t, 0.0, -0.5 * MITRE, 0.5 * side
    return t, (ox + t * dx) / radius, (oy + t * dy) / radius, 0.0


@compiled
def intersect_icosahedron(o: Vector, d: Vector, radius: float) -> Hit:
    """Intersect a ray with a regular icosahedron of circumradius `radius` that stands on a vertex."""
    (ox, oy, oz), (dx, dy, dz) = o, d
    half = radius * ICOSAHEDRON_INRADIUS
    near, far, face, side = -MISSED, MISSED, 0, 1.0
    for k in range(ICOSAHEDRON_NORMALS.shape[0]):
        x, y, z = ICOSAHEDRON_NORMALS[k, 0], ICOSAHEDRON_NORMALS[k, 1], ICOSAHEDRON_NORMALS[k, 2]
        down = x * dx + y * dy + z * dz
        t_in, t_out = _slab(x * ox + y * oy + z * oz, down, half)
        if t_in > near:
            near, face, side = t_in, k, -math.copysign(1.0, down)
        far = min(far, t_out)
        if near > far:
            return _MISS
    if near <= 0.0:
        return _MISS
    normal = ICOSAHEDRON_NORMALS[face]
    return near, side * normal[0], side * normal[1], side * normal[2]


@compiled
def intersect(kind: int, o: Vector, d: Vector, sizes: Vector) -> Hit:
    """Intersect a ray with a solid of the given kind and sizes."""
    a, b = sizes[0], sizes[1]
    if kind == SPHERE:
        return intersect_sphere(o, d, a)
    if kind == BOX:
        return intersect_box(o, d, sizes)
    if kind == CYLINDER:
        return intersect_cylinder(o, d, a, b)
    if kind == CAPSULE:
        return intersect_capsule(o, d, a, b)
    if kind == CONE:
        return intersect_cone(o, d, a, b)
    if kind == BAR:
        return intersect_bar(o, d, a, b)
    return intersect_icosahedron(o, d, a)
