"""Read real mazes for `maze_fit` and `maze_compare`: frames, exact cameras, edges of walls, and floor plans.

Records are read in place; nothing of them is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.compiled import compiled
from gqn_data.render.maze_cast import BLOCK, CORRIDOR, hit_wall
from gqn_data.render.maze_layout import SIDE
from gqn_data.render.mazes import raw_to_grid
from gqn_data.schema import jpeg
from gqn_data.schema.layout import SceneLayout
from gqn_data.tfrecord.example import SceneScanner
from gqn_data.tfrecord.framing import read_records

SIZE = 84
MIDDLE = SIZE / 2
CLEAN_ROWS = 64  # rows above the status line
_MARKS = 66, 9  # small marks cover the columns from the first number on, in rows above the second
_SKY = np.array((149, 224, 255))

Rows = NDArray[np.float64]  # (views, SIZE), one row number per pixel column; NaN if unknown
Plan = NDArray[np.int64]  # (SIDE, SIDE) by row and column: BLOCK or open


@dataclass(frozen=True)
class RealMaze:
    """One real scene.

    Attributes:
        name: split and index in the split.
        frames: uint8 (views, SIZE, SIZE, 3).
        cameras: float64 (views, 3): x, y in cells, yaw.
        jpegs: encoded frames.
    """

    name: str
    frames: NDArray[np.uint8]
    cameras: NDArray[np.float64]
    jpegs: tuple[bytes, ...]


def read_mazes(folder: Path) -> list[RealMaze]:
    """Return the scenes of all files in a raw folder of mazes, test first."""
    mazes = []
    scanner = SceneScanner(SceneLayout(views=300, height=SIZE, width=SIZE))
    for split in ("test", "train"):
        records = [
            (path, record) for path in sorted((folder / split).glob("*.tfrecord")) for record in read_records(path)
        ]
        for number, (path, record) in enumerate(records):
            scene = scanner.scan(record, path)
            parts = zip(scene.offsets, scene.lengths)
            jpegs = tuple(bytes(record.payload[begin : begin + length]) for begin, length in parts)
            frames = np.stack([jpeg.decode(data) for data in jpegs])
            cameras = raw_to_grid(scene.cameras.astype(np.float64))
            mazes.append(RealMaze(f"{split} {number}", frames, cameras, jpegs))
    return mazes


def wall_tops(maze: RealMaze) -> Rows:
    """Return the row at which the sky ends in each column of each frame, by colour."""
    sky = np.abs(maze.frames.astype(np.int64) - _SKY).max(axis=-1) < 28
    rows = np.argmin(sky, axis=1).astype(np.float64)
    seen = (rows > 4) & (rows < MIDDLE)
    seen[:, _MARKS[0] :] &= rows[:, _MARKS[0] :] > _MARKS[1]
    return np.where(seen, rows, np.nan)


def wall_feet(maze: RealMaze, expected: Rows, reach: int = 5, least: float = 60.0) -> Rows:
    """Return the row with the largest change in each column, within `reach` rows of the expected foot of the wall."""
    frames = maze.frames.astype(np.float64)
    steps = np.zeros((len(frames), SIZE + 1, SIZE))
    # Two rows on each side suppress the noise of single rows.
    steps[:, 2 : SIZE - 1] = np.abs(frames[:, 2:-1] + frames[:, 3:] - frames[:, 1:-2] - frames[:, :-3]).sum(axis=-1) / 2
    best, rows = np.full(expected.shape, least), np.full(expected.shape, np.nan)
    for offset in range(-reach, reach + 1):
        row = np.clip(np.round(expected) + offset, 2, SIZE - 2)
        step = np.take_along_axis(steps, row.astype(int)[:, None], axis=1)[:, 0]
        rows, best = np.where(step > best, row, rows), np.maximum(step, best)
    return np.where((expected > MIDDLE + 3) & (expected < CLEAN_ROWS + 6), rows, np.nan)


@compiled
def _fill_depths(plan: Plan, cameras: NDArray[np.float64], tangents: NDArray[np.float64], depths: Rows) -> None:
    for view in range(cameras.shape[0]):
        x, y, yaw = cameras[view, 0], cameras[view, 1], cameras[view, 2]
        for column in range(tangents.shape[0]):
            right = tangents[column]
            dx, dy = np.cos(yaw) + right * np.sin(yaw), np.sin(yaw) - right * np.cos(yaw)
            depths[view, column] = hit_wall(plan, x, y, dx, dy).t


def depths(plan: Plan, cameras: NDArray[np.float64], tangents: NDArray[np.float64]) -> Rows:
    """Return the depth of the wall in each column, in cells.

    Args:
        plan: floor plan of the maze.
        cameras: (views, 3): x, y in cells, yaw.
        tangents: tangents of the angles of the column centres, to the right.
    """
    found = np.empty((len(cameras), len(tangents)))
    _fill_depths(plan, cameras, tangents, found)
    return found


def column_tangents(tangent: float, shift: float = 0.0) -> NDArray[np.float64]:
    """Return the tangents of all pixel columns; `shift` is the offset of the picture's centre in pixels."""
    return np.asarray((np.arange(SIZE) + 0.5 + shift - MIDDLE) / MIDDLE * tangent, dtype=np.float64)


def carve(maze: RealMaze, tangent: float, rise: float) -> Plan:
    """Return a first floor plan of a maze, in which cells are open if enough rays pass through them.

    Args:
        maze: maze with frames and cameras.
        tangent: tangent of half the field of view.
        rise: height of the walls' tops above the eye, in cells.
    """
    tops = wall_tops(maze)
    passed, hit = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    right = column_tangents(tangent)
    ahead = rise * MIDDLE / (tangent * (MIDDLE - tops))
    x, y, yaw = (maze.cameras[:, k, None] for k in range(3))
    dx, dy = np.cos(yaw) + right * np.sin(yaw), np.sin(yaw) - right * np.cos(yaw)
    near = ahead < 4.5
    for at in np.arange(0.0, 4.5, 0.1):
        _count(passed, (x + at * dx)[near & (at < ahead - 0.3)], (y + at * dy)[near & (at < ahead - 0.3)])
    behind = ahead + 0.2 / np.hypot(dx, dy)
    _count(hit, (x + behind * dx)[near], (y + behind * dy)[near])
    return np.where(passed > np.maximum(30, 2 * hit), CORRIDOR, BLOCK).astype(np.int64)


def _count(counts: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < SIDE) & (row < SIDE)
    np.add.at(counts, (row[inside], column[inside]), 1)
