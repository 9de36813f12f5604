"""The Jaco arm of the scene set jaco: its joints, its forward kinematics, and the solids of its links.

Lengths are in metres, angles in radians, joint angles are Kinova's. The arm is defined once, standing straight up
(`HOME`). Each joint rotates all links after it about an axis that is given in that pose, so no further coordinate
frames are needed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.shapes import CAPSULE, CONE, CYLINDER, Solid, Vector, rotation_to

Floats = NDArray[np.float64]

JOINTS = 9  # six of the arm, then one per finger

# Kinova, "DH Parameters of Jaco", version 1.0.8 (25 July 2013), as cited in Corke's Robotics Toolbox (mdl_jaco) and
# in wpi_jaco_wrapper (jaco_kinematics.h): floor to shoulder, upper arm, forearm, two parts of the wrist, wrist to the
# point between the fingers, and the offset of the forearm's axis from the upper arm's.
D1, D2, D3, D4, D5, D6, E2 = 0.2755, 0.41, 0.2073, 0.0743, 0.0743, 0.1687, 0.0098
# Bend of each of the two parts of the wrist. 55 degrees in the first generation (kinova-ros, jaco_arm.xacro;
# wpi_jaco_wrapper: 2 x 11/72 of pi); the second generation has 60.
BEND = math.radians(55)
# Height at which joint 1 meets the shoulder (kinova-ros, jaco_arm.xacro).
TURNTABLE = 0.1535

# Joints 2 and 3: dm_control, third_party/kinova/jaco_arm.xml (47 to 313 and 19 to 341 degrees, Kinova's limits).
# Fingers: dm_control, third_party/kinova/jaco_hand.xml. The other joints are unlimited.
JOINT_RANGES = np.array([(0, 2 * math.pi), (0.82, 5.46), (0.33, 5.95)] + 3 * [(0, 2 * math.pi)] + 3 * [(0.15, 1.35)])

# The arm straight up with fingers at zero; joints 2 and 3 are then at 180 degrees in Kinova's convention.
HOME = np.array([0, math.pi, math.pi, 0, 0, 0, 0, 0, 0])

# Knuckles relative to the last joint: distance along the hand; then per finger the distance from the hand's axis, its
# bearing, and the bearing of the plane in which the finger closes (kinova-ros, jaco_arm.xacro). One finger opposes two.
_KNUCKLE_ALONG = 0.1007
_KNUCKLES = ((0.0398, math.pi, math.pi), (0.0417, -0.544, -0.236), (0.0417, 0.544, 0.240))
# Outward lean of a finger at zero, and length of its first part (dm_control, jaco_hand.xml).
_FINGER_LEAN, _PROXIMAL = 0.92, 0.044
_DISTAL, _FINGER_BEND = 0.042, 0.35  # by eye

# Greys and rings: dm_control, third_party/kinova/common.xml (0.1 and 0.7) and jaco_arm.xml (radius, half height).
# The dark grey is slightly lighter here, because the real shells are glossy carbon and ours do not reflect.
_DARK, _LIGHT = (0.13, 0.13, 0.14), (0.70, 0.70, 0.72)
# Links of two real frames are 3.7 pixels thick: 1.2 times what the radii below give (docs/rendering.md).
_THICKNESS = 1.2
_LARGE_RING, _SMALL_RING = (0.046, 0.011), (0.037, 0.009)


class Part(NamedTuple):
    """One solid of the arm in the pose `HOME`; it lies within `radius` of the segment from start to end.

    Attributes:
        link: 0 for the base, else the number of the joint that moves this link and all links after it.
        kind: CAPSULE, CYLINDER, or CONE with its base at `start`, of `shapes`.
        start: start of the axis.
        end: end of the axis.
        radius: radius about the axis, of a cone at its base; drawn larger by a factor (`RADII`).
        colour: RGB, 0 to 1.
    """

    link: int
    kind: int
    start: Vector
    end: Vector
    radius: float
    colour: Vector


class _Joint(NamedTuple):
    """Axis of a joint in the pose `HOME`: a point on it, and a unit vector about which its angle grows."""

    point: Vector
    axis: Vector


def _along(start: Vector, direction: Vector, length: float) -> Vector:
    return (
        start[0] + length * direction[0],
        start[1] + length * direction[1],
        start[2] + length * direction[2],
    )


_UP: Vector = (0.0, 0.0, 1.0)
_BENT: Vector = (0.0, math.sin(BEND), math.cos(BEND))  # along the middle of the wrist
_SHOULDER: Vector = (0.0, 0.0, D1)
_ELBOW: Vector = (0.0, 0.0, D1 + D2)
_WRIST: Vector = (0.0, -E2, D1 + D2 + D3)
# Each part of the wrist is bent in its middle, as the legs of an isosceles triangle over the distance of its joints.
_LEG_4, _LEG_5 = D4 / (2 * math.cos(BEND / 2)), D5 / (2 * math.cos(BEND / 2))
_FIRST_BEND = _along(_WRIST, _UP, _LEG_4)
_MIDDLE = _along(_FIRST_BEND, _BENT, _LEG_4)
_SECOND_BEND = _along(_MIDDLE, _BENT, _LEG_5)
HAND = _along(_SECOND_BEND, _UP, _LEG_5)
GRIP = _along(HAND, _UP, D6)


def _direction(bearing: float, lean: float) -> Vector:
    """Return the unit vector that leans from the vertical towards a bearing by the angle `lean`."""
    return math.cos(bearing) * math.sin(lean), math.sin(bearing) * math.sin(lean), math.cos(lean)


def _knuckle(finger: int) -> Vector:
    aside, bearing, _ = _KNUCKLES[finger]
    return HAND[0] + aside * math.cos(bearing), HAND[1] + aside * math.sin(bearing), HAND[2] + _KNUCKLE_ALONG


def _finger_joint(finger: int) -> _Joint:
    plane = _KNUCKLES[finger][2]
    # The axis is outwards x up, so that a growing angle closes the finger.
    return _Joint(_knuckle(finger), (math.sin(plane), -math.cos(plane), 0.0))


_CHAIN = (
    _Joint(_SHOULDER, (0.0, 0.0, -1.0)),
    _Joint(_SHOULDER, (0.0, -1.0, 0.0)),
    _Joint(_ELBOW, (0.0, 1.0, 0.0)),
    _Joint(_WRIST, (0.0, 0.0, -1.0)),
    _Joint(_MIDDLE, (-_BENT[0], -_BENT[1], -_BENT[2])),
    _Joint(HAND, (0.0, 0.0, -1.0)),
    *(_finger_joint(finger) for finger in range(3)),
)


def _ring(link: int, centre: Vector, axis: Vector, size: tuple[float, float]) -> Part:
    radius, half = size
    return Part(link, CYLINDER, _along(centre, axis, -half), _along(centre, axis, half), radius, _LIGHT)


def _finger_parts(finger: int) -> tuple[Part, Part]:
    plane, knuckle = _KNUCKLES[finger][2], _knuckle(finger)
    middle = _along(knuckle, _direction(plane, _FINGER_LEAN), _PROXIMAL)
    tip = _along(middle, _direction(plane, _FINGER_LEAN - _FINGER_BEND), _DISTAL)
    link = 7 + finger
    return (
        Part(link, CAPSULE, knuckle, middle, 0.0118, _LIGHT),
        Part(link, CAPSULE, middle, tip, 0.0105, _LIGHT),
    )


def _parts() -> tuple[Part, ...]:
    """Return the parts of the arm standing straight up.

    Radii (except of the rings) and offsets from the axes were set by eye. The upper arm is on one side of shoulder and
    elbow (y > 0); shoulder and forearm are on the other.
    """
    side: Vector = (0.0, 1.0, 0.0)
    low = (0.0, 0.0, TURNTABLE)
    return (
        Part(0, CYLINDER, (0.0, 0.0, 0.0), low, 0.04, _DARK),
        _ring(0, (0.0, 0.0, 0.012), _UP, _LARGE_RING),
        _ring(1, low, _UP, _LARGE_RING),
        Part(1, CAPSULE, low, (0.0, -0.018, D1 - 0.02), 0.043, _DARK),
        Part(1, CAPSULE, (0.0, -0.03, D1), _SHOULDER, 0.044, _DARK),
        _ring(2, _along(_SHOULDER, side, 0.008), side, _LARGE_RING),
        Part(2, CAPSULE, _along(_SHOULDER, side, 0.012), _along(_SHOULDER, side, 0.034), 0.043, _DARK),
        Part(2, CAPSULE, _along(_SHOULDER, side, 0.03), _along(_ELBOW, side, 0.03), 0.036, _DARK),
        Part(2, CAPSULE, _along(_ELBOW, side, 0.012), _along(_ELBOW, side, 0.034), 0.043, _DARK),
        _ring(3, _along(_ELBOW, side, 0.002), side, _LARGE_RING),
        Part(3, CAPSULE, _along(_ELBOW, side, -0.028), _ELBOW, 0.043, _DARK),
        Part(3, CAPSULE, _along(_ELBOW, side, -0.024), _along(_WRIST, _UP, -0.01), 0.034, _DARK),
        _ring(4, _WRIST, _UP, _SMALL_RING),
        Part(4, CAPSULE, _WRIST, _FIRST_BEND, 0.033, _DARK),
        Part(4, CAPSULE, _FIRST_BEND, _MIDDLE, 0.033, _DARK),
        _ring(5, _MIDDLE, _BENT, _SMALL_RING),
        Part(5, CAPSULE, _MIDDLE, _SECOND_BEND, 0.033, _DARK),
        Part(5, CAPSULE, _SECOND_BEND, HAND, 0.033, _DARK),
        _ring(6, HAND, _UP, _SMALL_RING),
        Part(6, CAPSULE, HAND, _along(HAND, _UP, 0.045), 0.035, _DARK),
        # Widening towards the fingers, with a light inset between them.
        Part(6, CONE, _along(HAND, _UP, 0.104), _along(HAND, _UP, -0.07), 0.053, _DARK),
        Part(6, CYLINDER, _along(HAND, _UP, 0.1), _along(HAND, _UP, 0.107), 0.03, _LIGHT),
        *(part for finger in range(3) for part in _finger_parts(finger)),
    )


PARTS = _parts()

_POINTS = np.array([joint.point for joint in _CHAIN], dtype=np.float64)
_CROSS = np.array([[(0, -z, y), (z, 0, -x), (-y, x, 0)] for x, y, z in (joint.axis for joint in _CHAIN)])
_CROSS_TWICE = _CROSS @ _CROSS
_ENDS = np.array([[(*part.start, 1.0), (*part.end, 1.0)] for part in PARTS])
_LINKS = np.array([part.link for part in PARTS])
RADII = np.array([_THICKNESS * part.radius for part in PARTS])  # as drawn
_SOLID_RADII = RADII / _THICKNESS  # neighbours that are drawn thicker overlap

# Pairs of links that are not neighbours and can collide: wrist, hand and fingers with all links up to the elbow; the
# forearm with base and shoulder; hand and fingers with the forearm.
_CAN_COLLIDE = (
    (_LINKS[:, None] <= 2) & (_LINKS >= 4)
    | (_LINKS[:, None] <= 1) & (_LINKS == 3)
    | (_LINKS[:, None] == 3) & (_LINKS >= 6)
)


def link_motions(joints: Floats) -> Floats:
    """Return the motion of every link relative to the pose `HOME`.

    Args:
        joints: (9,), Kinova's angles of the six joints, then of the three fingers.

    Returns:
        Homogeneous matrices (10, 4, 4): of the base, then of the link that each joint moves.
    """
    angles = np.asarray(joints, dtype=np.float64) - HOME
    # Rodrigues' formula for all joints at once.
    sines, cosines = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    turns = np.tile(np.eye(4), (JOINTS, 1, 1))
    turns[:, :3, :3] += sines * _CROSS + (1.0 - cosines) * _CROSS_TWICE
    turns[:, :3, 3] = _POINTS - np.einsum("jkl,jl->jk", turns[:, :3, :3], _POINTS)
    motions = np.tile(np.eye(4), (JOINTS + 1, 1, 1))
    for joint in range(1, 7):
        motions[joint] = motions[joint - 1] @ turns[joint - 1]
    motions[7:] = motions[6] @ turns[6:]
    return motions


def part_segments(joints: Floats) -> Floats:
    """Return the axes of all `PARTS` for these joint angles, as segments (parts, 2, 3)."""
    motions = link_motions(joints)[_LINKS]
    return np.asarray(np.einsum("pkl,pel->pek", motions, _ENDS)[..., :3])


def floor_clearance(ends: Floats) -> float:
    """Return the height of the arm's lowest point above the floor, without the base; segments as `part_segments`."""
    return float((ends[..., 2].min(axis=1) - RADII)[_LINKS > 0].min())


def distance_to_arm(ends: Floats, point: Vector) -> float:
    """Return the signed distance of a point from the surface of the arm; negative inside."""
    start, run = ends[:, 0], ends[:, 1] - ends[:, 0]
    away = np.asarray(point) - start
    along = np.clip((away * run).sum(axis=1) / (run * run).sum(axis=1), 0.0, 1.0)
    return float((np.linalg.norm(away - along[:, None] * run, axis=1) - RADII).min())


def self_collides(ends: Floats) -> bool:
    """Return whether links that are not neighbours overlap."""
    one, other = np.nonzero(_CAN_COLLIDE)
    gaps = segment_distances(ends[one], ends[other]) - _SOLID_RADII[one] - _SOLID_RADII[other]
    return bool((gaps < 0.0).any())


def segment_distances(one: Floats, other: Floats) -> Floats:
    """Return the distances (pairs,) between segments (pairs, 2, 3) and segments (pairs, 2, 3), none of length zero."""
    run, other_run = one[:, 1] - one[:, 0], other[:, 1] - other[:, 0]
    away = one[:, 0] - other[:, 0]
    a, e, b = (run * run).sum(axis=1), (other_run * other_run).sum(axis=1), (run * other_run).sum(axis=1)
    c, f = (run * away).sum(axis=1), (other_run * away).sum(axis=1)
    # Nearest points on the two infinite lines, then clamped to one segment after the other.
    across = a * e - b * b
    s = np.clip(np.where(across > 1e-12, (b * f - c * e) / np.maximum(across, 1e-12), 0.0), 0.0, 1.0)
    t = np.clip((b * s + f) / e, 0.0, 1.0)
    s = np.clip((b * t - c) / a, 0.0, 1.0)
    return np.asarray(np.linalg.norm(away + s[:, None] * run - t[:, None] * other_run, axis=1))


def arm_solids(joints: Floats, scale: float) -> tuple[Solid, ...]:
    """Return the solids of the arm with its base at the origin, at `scale` world units per metre."""
    solids = []
    for part, radius, (start, end) in zip(PARTS, RADII, part_segments(joints)):
        run = (end - start) * scale
        centre = (start + end) * (scale / 2)
        solids.append(
            Solid(
                kind=part.kind,
                centre=(float(centre[0]), float(centre[1]), float(centre[2])),
                sizes=(float(radius) * scale, float(np.linalg.norm(run)) / 2),
                colour=part.colour,
                rotation=rotation_to(run),
            )
        )
    return tuple(solids)


def sample_joints(random: np.random.Generator) -> Floats:
    """Sample joint angles (9,), uniform over `JOINT_RANGES`, that collide neither with the floor nor the arm itself."""
    while True:
        joints = random.uniform(JOINT_RANGES[:, 0], JOINT_RANGES[:, 1])
        ends = part_segments(joints)
        if floor_clearance(ends) >= 0.0 and not self_collides(ends):
            return joints
