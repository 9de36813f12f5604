"""Photos of coloured points in space, painted by a projector that shares no code with the importer."""

import json
import math
import struct

import numpy as np
from PIL import Image

from gqn_data.dataset import open_dataset

SIZE = 64  # pixels of a frame
OPENCV = ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2")

# Red, green and blue point of the scene, off the axes so that a mirrored or turned frame shows.
POINTS = np.array([(0.35, 0.1, 0.25), (-0.25, 0.3, -0.1), (0.05, -0.35, 0.15)])


def look_at(position, roll=0.0, target=(0, 0, 0), up=(0, 0, 1)):
    """Return the axes (3, 3) of a camera as rows right, down, forward; roll in degrees, clockwise from behind."""
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    return np.array([cos * right + sin * down, -sin * right + cos * down, forward])


def orbit(count, radius=2.0, heights=(0.3, 0.9)):
    """Return positions (count, 3) on a ring of changing height."""
    turns = np.linspace(0, 2 * math.pi, count, endpoint=False)
    height = np.where(np.arange(count) % 2, *heights)
    return np.column_stack([radius * np.cos(turns), radius * np.sin(turns), height])


def project(point, position, axes, lens):
    """Return the pixel (column, row) of a point, in OpenCV's notation and one number at a time."""
    x, y, depth = (sum(a * (p - c) for a, p, c in zip(axis, point, position)) for axis in axes)
    x, y = x / depth, y / depth
    k1, k2, p1, p2 = (lens.get(key, 0.0) for key in ("k1", "k2", "p1", "p2"))
    r2 = x * x + y * y
    factor = 1 + k1 * r2 + k2 * r2 * r2
    bent_x = x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * factor + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return lens["fl_x"] * bent_x + lens["cx"], lens["fl_y"] * bent_y + lens["cy"]


def paint(position, axes, lens, points=POINTS, sigma=2.5):
    """Return a photo, uint8 (h, w, 3): black, with a red, a green and a blue spot at the points."""
    row, column = np.mgrid[: lens["h"], : lens["w"]] + 0.5
    spots = []
    for point in points:
        x, y = project(point, position, axes, lens)
        spots.append(255 * np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2)))
    return np.stack(spots, -1).astype(np.uint8)


def lens_of(width=160, height=120, focal=150.0, **others):
    return {"w": width, "h": height, "fl_x": focal, "fl_y": focal, "cx": width / 2, "cy": height / 2, **others}


def make_capture(folder, positions=None, lenses=None, rolls=None, turn=None, scale=1.0, shift=(0, 0, 0), points=POINTS):
    """Write photos and `transforms.json`; return the cameras' (position, axes) in the file's world.

    Args:
        turn: rotation (3, 3) from the scene's world to that of the file.
        scale: of the file's units.
        shift: of the file's origin, in its units.
    """
    positions = orbit(8) if positions is None else positions
    lenses = lenses or [lens_of()] * len(positions)
    rolls = rolls or [0] * len(positions)
    turn = np.eye(3) if turn is None else turn
    (folder / "images").mkdir(parents=True)
    frames, cameras = [], []
    for number, (position, lens, roll) in enumerate(zip(positions, lenses, rolls)):
        axes = look_at(position, roll)
        Image.fromarray(paint(position, axes, lens, points)).save(folder / "images" / f"{number:03}.png")
        cameras.append((scale * turn @ position + shift, axes @ turn.T))
        matrix = np.eye(4)
        matrix[:3, :3] = (cameras[-1][1] * [[1], [-1], [-1]]).T  # OpenGL: right, up, back
        matrix[:3, 3] = cameras[-1][0]
        frames.append({"file_path": f"images/{number:03}.png", "transform_matrix": matrix.tolist(), **lens})
    (folder / "transforms.json").write_text(json.dumps({"camera_model": "OPENCV", "frames": frames}))
    return cameras


def spots_of(frame):
    """Return the centres (3, 2) of the red, green and blue spot, (column, row); NaN if there is none."""
    row, column = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
    weight = np.where(frame > 40, frame, 0).astype(float).reshape(-1, 3)
    with np.errstate(invalid="ignore"):
        return np.stack([(at.reshape(-1, 1) * weight).sum(0) / weight.sum(0) for at in (column, row)], -1)


def seen_by(point, camera, field_of_view, size):
    """Return the pixel of a point in a frame, from the documented meaning of a camera's five numbers."""
    x, y, z, yaw, pitch = map(float, camera)
    ahead = (math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch))
    right = (math.sin(yaw), -math.cos(yaw), 0.0)
    above = (-math.cos(yaw) * math.sin(pitch), -math.sin(yaw) * math.sin(pitch), math.cos(pitch))
    to = (point[0] - x, point[1] - y, point[2] - z)
    depth, across, up = (sum(a * b for a, b in zip(to, axis)) for axis in (ahead, right, above))
    half = math.tan(math.radians(field_of_view) / 2)
    return (across / depth / half + 1) * size / 2, (1 - up / depth / half) * size / 2


def assert_points_land(folder, points=POINTS):
    """Compare the spots of all frames with the pixels that their cameras give; return how many were compared.

    Args:
        points: the points in the camera file's world.
    """
    manifest = open_dataset(folder).manifest
    matrix = np.array(manifest.origin.details["captures"][0]["matrix"])
    field_of_view, compared, worst = manifest.geometry.field_of_view, 0, 0.0
    for split in manifest.splits:
        for scene in open_dataset(folder, split):
            for frame, camera in zip(scene.frames, scene.cameras):
                for point, spot in zip(points @ matrix[:, :3].T + matrix[:, 3], spots_of(frame)):
                    expected = seen_by(point, camera, field_of_view, SIZE)
                    if min(expected) > 4 and max(expected) < SIZE - 4:
                        worst = max(worst, float(np.abs(np.subtract(expected, spot)).max()))
                        compared += 1
    assert worst < 0.15, worst
    return compared


def write_colmap(folder, cameras, lenses, points=(), *, binary):
    """Write `sparse/0` for the photos of `make_capture`; OPENCV lenses, each point seen by all images."""
    home = folder / "sparse" / "0"
    home.mkdir(parents=True)
    ends = [(quaternion_of(axes), -axes @ position) for position, axes in cameras]
    rows = [[lens.get(key, 0.0) for key in OPENCV] for lens in lenses]
    if not binary:
        lines = [
            f"{at + 1} OPENCV {lens['w']} {lens['h']} {_text(row)}" for at, (lens, row) in enumerate(zip(lenses, rows))
        ]
        (home / "cameras.txt").write_text("# Camera list\n" + "\n".join(lines) + "\n")
        lines = [f"{at + 1} {_text((*q, *t))} {at + 1} {at:03}.png\n1.5 2.5 -1" for at, (q, t) in enumerate(ends)]
        (home / "images.txt").write_text("# Image list\n" + "\n".join(lines) + "\n")
        tracks = " ".join(f"{at + 1} 0" for at in range(len(ends)))
        lines = [f"{number} {_text(point)} 1 2 3 0.5 {tracks}" for number, point in enumerate(points)]
        (home / "points3D.txt").write_text("\n".join(lines) + "\n")
        return
    data = struct.pack("<Q", len(rows))
    for at, (lens, row) in enumerate(zip(lenses, rows)):
        data += struct.pack("<IiQQ8d", at + 1, 4, lens["w"], lens["h"], *row)
    (home / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", len(ends))
    for at, (q, t) in enumerate(ends):
        data += struct.pack("<I7dI", at + 1, *q, *t, at + 1) + f"{at:03}.png".encode() + b"\0"
        data += struct.pack("<Qddq", 1, 1.5, 2.5, -1)
    (home / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(points))
    for number, point in enumerate(points):
        data += struct.pack("<Q3d3BdQ", number, *point, 1, 2, 3, 0.5, len(ends))
        data += b"".join(struct.pack("<II", at + 1, 0) for at in range(len(ends)))
    (home / "points3D.bin").write_bytes(data)


def quaternion_of(axes):
    """Return the quaternion w, x, y, z of a rotation (3, 3): the eigenvector of Bar-Itzhack's matrix."""
    (a, b, c), (d, e, f), (g, h, i) = axes
    matrix = [[a - e - i, b + d, c + g, h - f], [b + d, e - a - i, f + h, c - g]]
    matrix += [[c + g, f + h, i - a - e, d - b], [h - f, c - g, d - b, a + e + i]]
    x, y, z, w = np.linalg.eigh(np.array(matrix))[1][:, -1]
    return w, x, y, z


def _text(numbers):
    return " ".join(repr(float(number)) for number in numbers)
