"""Ray intersections with solids, against point tests that share no code with the ray caster."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gqn_data.render import shapes
from gqn_data.render.shapes import BAR, BOX, CAPSULE, CONE, CYLINDER, ICOSAHEDRON, MISSED, SPHERE, Solid, intersect

ROOT = math.sqrt(0.5)


def golden_icosahedron():
    """Return face planes (normals, offsets) of an icosahedron of circumradius 1, by trying all triples."""
    ring = [(2 / math.sqrt(5) * math.cos(a), 2 / math.sqrt(5) * math.sin(a)) for a in np.arange(5) * 2 * math.pi / 5]
    top = [(x, y, 1 / math.sqrt(5)) for x, y in ring]
    vertices = np.array([(0, 0, 1), *top, *[(-x, -y, -z) for x, y, z in top], (0, 0, -1)])
    planes = []
    for a, b, c in itertools.combinations(vertices, 3):
        normal = np.cross(b - a, c - a)
        if np.linalg.norm(normal) < 1e-9:
            continue
        normal /= np.linalg.norm(normal)
        heights = vertices @ normal - a @ normal
        if heights.max() < 1e-9 and (heights > -1e-9).sum() == 3:
            planes.append((*normal, a @ normal))
        elif heights.min() > -1e-9 and (heights < 1e-9).sum() == 3:
            planes.append((*-normal, -a @ normal))
    assert len(planes) == 20
    return np.array(planes)


PLANES = golden_icosahedron()


def holds(kind, sizes, points):
    """Return a mask of the points (n, 3) inside the solid, by its definition."""
    a, b, c = sizes
    x, y, z = points.T
    across = np.hypot(x, y)
    if kind == SPHERE:
        return x * x + y * y + z * z < a * a
    if kind == BOX:
        return (abs(x) < a) & (abs(y) < b) & (abs(z) < c)
    if kind == CYLINDER:
        return (across < a) & (abs(z) < b)
    if kind == CAPSULE:
        return np.hypot(across, np.maximum(abs(z) - b, 0)) < a
    if kind == CONE:
        return (abs(z) < b) & (across < a * (b - z) / (2 * b))
    if kind == BAR:  # its ends are cut at 60 degrees to the axis
        return (across < a) & (abs(z) < b + y * math.tan(math.radians(60)))
    return (points @ PLANES[:, :3].T < a * PLANES[:, 3]).all(axis=1)


KINDS = {
    "sphere": (SPHERE, (0.5, 0.0, 0.0)),
    "box": (BOX, (0.3, 0.5, 0.7)),
    "cylinder": (CYLINDER, (0.4, 0.6, 0.0)),
    "capsule": (CAPSULE, (0.3, 0.4, 0.0)),
    "cone": (CONE, (0.5, 0.5, 0.0)),
    "icosahedron": (ICOSAHEDRON, (0.7, 0.0, 0.0)),
    "bar": (BAR, (0.2, 0.5, 0.0)),
}


@pytest.mark.parametrize(
    ("shape", "origin", "direction", "distance", "normal"),
    [
        ("sphere", (3, 0, 0), (-1, 0, 0), 2.5, (1, 0, 0)),
        ("box", (3, 0.1, 0.2), (-1, 0, 0), 2.7, (1, 0, 0)),
        ("box", (0.1, -3, 0.2), (0, 1, 0), 2.5, (0, -1, 0)),
        ("box", (0.1, 0.2, 3), (0, 0, -1), 2.3, (0, 0, 1)),
        ("cylinder", (3, 0, 0.5), (-1, 0, 0), 2.6, (1, 0, 0)),
        ("cylinder", (0.3, 0, 3), (0, 0, -1), 2.4, (0, 0, 1)),
        ("cylinder", (0.3, 0, -3), (0, 0, 1), 2.4, (0, 0, -1)),
        ("capsule", (0, 3, 0.3), (0, -1, 0), 2.7, (0, 1, 0)),
        ("capsule", (0, 0, 3), (0, 0, -1), 2.3, (0, 0, 1)),
        ("capsule", (3, 0, 0.4 + 0.18), (-1, 0, 0), 3 - 0.24, (0.8, 0, 0.6)),
        ("cone", (0, 0, -3), (0, 0, 1), 2.5, (0, 0, -1)),
        ("cone", (3, 0, 0), (-1, 0, 0), 2.75, (2 / math.sqrt(5), 0, 1 / math.sqrt(5))),
        ("bar", (0.1, 3, 0.7), (0, -1, 0), 3 - 0.1 * math.sqrt(3), (0.5, ROOT * math.sqrt(1.5), 0)),
        ("bar", (0, 0.1, 3), (0, 0, -1), 2.5 - 0.1 * math.sqrt(3), (0, -math.sqrt(3) / 2, 0.5)),
        ("icosahedron", tuple(3 * PLANES[7, :3]), tuple(-PLANES[7, :3]), 3 - 0.7 * PLANES[7, 3], PLANES[7, :3]),
        ("icosahedron", tuple(3 * PLANES[0, :3]), tuple(-PLANES[0, :3]), 3 - 0.7 * PLANES[0, 3], PLANES[0, :3]),
    ],
)
def test_known_rays_meet_known_surfaces_at_known_distances(shape, origin, direction, distance, normal):
    kind, sizes = KINDS[shape]
    found = intersect(kind, tuple(map(float, origin)), tuple(map(float, direction)), sizes)
    assert found == pytest.approx((distance, *normal), abs=1e-9)


@pytest.mark.parametrize("shape", KINDS)
@pytest.mark.parametrize(("axis", "sign"), list(itertools.product(range(3), (-1, 1))))
def test_rays_that_point_away_or_pass_by_miss(shape, axis, sign):
    kind, sizes = KINDS[shape]
    start, away, aside = np.zeros(3), np.zeros(3), np.zeros(3)
    start[axis], away[axis], aside[(axis + 1) % 3] = 2.0 * sign, 1.0 * sign, 1.0
    assert intersect(kind, tuple(start), tuple(away), sizes)[0] == MISSED
    assert intersect(kind, tuple(start), tuple(aside), sizes)[0] == MISSED


unit = st.floats(-1, 1, allow_nan=False)


@pytest.mark.parametrize("shape", KINDS)
@settings(max_examples=150, deadline=None)
@given(where=st.tuples(unit, unit, unit), target=st.tuples(unit, unit, unit))
@example(where=(0.0, 4.0413011546886976e-09, 0.5), target=(0.0, 0.0, 0.0))  # through the apex of the cone
@example(where=(0.0, 0.0, 1.0), target=(0.0, 0.0, 0.0))
def test_a_ray_enters_at_its_first_point_inside(shape, where, target):
    kind, sizes = KINDS[shape]
    outward = np.array(where)
    if np.linalg.norm(outward) < 0.1:
        return
    origin = 2.5 * outward / np.linalg.norm(outward)
    direction = 0.7 * np.array(target) - origin
    direction /= np.linalg.norm(direction)
    t, *normal = intersect(kind, tuple(origin.tolist()), tuple(direction.tolist()), sizes)

    steps = np.arange(0, 5, 1e-3)
    inside = holds(kind, sizes, origin + steps[:, None] * direction)
    if not inside.any():  # the ray may graze the solid between two steps
        assert t == MISSED or not holds(kind, sizes, (origin + (t + 2e-3) * direction)[None])[0]
        return
    assert inside.argmax() * 1e-3 - 1e-3 - 1e-9 <= t <= inside.argmax() * 1e-3 + 1e-9
    assert np.linalg.norm(normal) == pytest.approx(1)
    assert np.dot(normal, direction) < 0


@pytest.mark.parametrize("shape", KINDS)
def test_the_bounding_sphere_is_tight(shape):
    kind, sizes = KINDS[shape]
    radius = Solid(kind=kind, centre=(0, 0, 0), sizes=sizes, colour=(1, 1, 1)).bounding_radius
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))
    farthest = np.linalg.norm(points[holds(kind, sizes, points)], axis=1).max()
    assert farthest <= radius <= farthest + 0.05


def test_a_packed_row_holds_the_numbers_of_the_solid():
    turn = shapes.rotation_to((0, 1, 1))
    solid = Solid(kind=CAPSULE, centre=(1, 2, 3), sizes=(0.1, 0.4), colour=(0.2, 0.4, 0.6), rotation=turn)
    kinds, rows = shapes.pack([solid])
    assert kinds.tolist() == [CAPSULE]
    assert rows[0].tolist() == [1, 2, 3, *turn.ravel(), 0.1, 0.4, 0, 0.5, 0.2, 0.4, 0.6]


@settings(deadline=None)
@given(st.tuples(unit, unit, unit).filter(lambda axis: np.linalg.norm(axis) > 0.01))
def test_rotation_to_returns_a_rotation_with_z_along_the_axis(axis):
    turn = shapes.rotation_to(axis)
    assert turn @ turn.T == pytest.approx(np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)
    assert turn[2] == pytest.approx(np.array(axis) / np.linalg.norm(axis))
