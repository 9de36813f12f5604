"""Compare rendered mazes with real ones: a contact sheet, and statistics of frames and walks.

    python -m benchmarks.maze_compare ../shared/data/mazes -o /tmp/mazes.png

Writes a sheet with real frames on the left and rendered ones on the right. Prints means, deviations, JPEG bytes and
edges of the frames, then statistics of moves, turns and distances of the walks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.maze_records import CLEAN_ROWS, SIZE, RealMaze, carve, read_mazes
from benchmarks.render_compare import HEADING, Figures
from gqn_data.render.maze_cast import BLOCK
from gqn_data.render.maze_walk import SPIN, TURN
from gqn_data.render.mazes import EYE_HEIGHT, FIELD_OF_VIEW, WALL_HEIGHT, render_maze, sample_maze_scene

_VIEWS = 300
_PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class CameraPath:
    """A walk and the floor plan of its maze.

    Attributes:
        cameras: (views, 3): x, y in cells, yaw.
        plan: floor plan by row and column, BLOCK or open.
    """

    cameras: NDArray[np.float64]
    plan: NDArray[np.int64]

    @property
    def moves(self) -> NDArray[np.float64]:
        """Distances in cells between successive views, after the turn on the spot."""
        return np.asarray(np.linalg.norm(np.diff(self.cameras[SPIN + 2 :, :2], axis=0), axis=1))

    @property
    def turns(self) -> NDArray[np.int64]:
        """Turns between successive views in units of TURN, counter-clockwise, after the turn on the spot."""
        angles = np.diff(self.cameras[SPIN + 2 :, 2])
        return np.round((np.mod(angles + np.pi, 2 * np.pi) - np.pi) / TURN).astype(np.int64)

    @property
    def wall_distances(self) -> NDArray[np.float64]:
        """Distance of each view from the nearest wall, in cells, measured along the grid."""
        rows, columns = np.nonzero(self.plan == BLOCK)
        x, y = self.cameras[:, 0, None], self.cameras[:, 1, None]
        aside = np.maximum(np.maximum(columns - x, x - columns - 1), np.maximum(rows - y, y - rows - 1))
        return np.asarray(aside.min(axis=1))

    @property
    def cells(self) -> int:
        """Number of cells visited."""
        return len({(int(x), int(y)) for x, y in self.cameras[:, :2]})


def walk_table(real: Sequence[CameraPath], ours: Sequence[CameraPath]) -> str:
    """Return statistics of real walks and ours, as text."""
    lines = [f"percentiles {_PERCENTILES}; lengths in cells"]
    for name, walks in (("real", real), ("ours", ours)):
        moves, turns = np.stack([walk.moves for walk in walks]), np.stack([walk.turns for walk in walks])
        distances = np.stack([walk.wall_distances for walk in walks])
        pairs = [np.mean(turns[:, lag:] * turns[:, :-lag]) / np.mean(turns**2) for lag in (1, 2, 4, 8, 16)]
        shares = np.bincount((turns + 2).ravel(), minlength=5) / turns.size
        still = (moves < 0.005).mean(axis=1)
        lines += [
            f"{name}, {len(walks)} walks",
            f"  moves {_listed(np.percentile(moves, _PERCENTILES))}, maximum {moves.max():.3f}",
            f"  mean move {moves.mean():.3f} (walks: {moves.mean(axis=1).min():.3f} to {moves.mean(axis=1).max():.3f})",
            f"  standing still {still.mean():.3f} (walks: {still.min():.3f} to {still.max():.3f})",
            f"  turns by -2, -1, 0, 1, 2: {_listed(shares)}; correlation at lags 1, 2, 4, 8, 16: {_listed(pairs)}",
            f"  distance from a wall {_listed(np.percentile(distances, _PERCENTILES))}, minimum {distances.min():.4f}",
            f"  cells visited {_listed(np.percentile([walk.cells for walk in walks], (0, 50, 100)))}",
        ]
    return "\n".join(lines)


def _listed(values: Sequence[float] | NDArray[np.float64]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def real_walks(mazes: Sequence[RealMaze]) -> list[CameraPath]:
    """Return the walks of real mazes, with floor plans reconstructed from the frames."""
    tangent = float(np.tan(FIELD_OF_VIEW / 2))
    return [CameraPath(maze.cameras, carve(maze, tangent, WALL_HEIGHT - EYE_HEIGHT)) for maze in mazes]


def ours(scenes: int, every: int) -> tuple[list[CameraPath], NDArray[np.uint8]]:
    """Render training scenes of seed 0; return walks, and frames (scenes, views, SIZE, SIZE, 3) of every n-th view."""
    walks, frames = [], []
    for index in range(scenes):
        maze, cameras = sample_maze_scene(index, seed=0, split="train", views=_VIEWS)
        walks.append(CameraPath(cameras, maze.layout.cells))
        frames.append(render_maze(maze.layout.cells, maze.wall, maze.floor, cameras[::every], SIZE, supersample=True))
    return walks, np.stack(frames)


def _grid(frames: NDArray[np.uint8], gap: int = 2) -> NDArray[np.uint8]:
    padded = np.pad(frames, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=90)
    scenes, views, high, wide = padded.shape[:4]
    return padded.transpose(0, 2, 1, 3, 4).reshape(scenes * high, views * wide, 3)


def main() -> None:
    """Write the sheet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="raw folder of real mazes, with train/ and test/")
    parser.add_argument("-o", "--output", type=Path, default=Path("mazes.png"), help="sheet to write")
    parser.add_argument("--scenes", type=int, default=60, help="number of our scenes in the statistics")
    arguments = parser.parse_args()
    mazes = read_mazes(arguments.folder)
    if arguments.scenes < len(mazes):
        parser.error(f"--scenes {arguments.scenes}: expected {len(mazes)} or more, one per real maze")
    walks, made = ours(arguments.scenes, every=10)
    real = np.stack([maze.frames[::10] for maze in mazes])
    print(HEADING)
    for name, rows in (("whole frames", SIZE), (f"the upper {CLEAN_ROWS} rows", CLEAN_ROWS)):
        for side, frames in (("real", real), ("ours", made)):
            print(Figures.of(frames[:, :, :rows]).row(f"{side} mazes, {name}", frames.shape[0] * frames.shape[1]))
    print(walk_table(real_walks(mazes), walks))
    shown = slice(0, None, 4)
    bar = np.full((len(real) * (SIZE + 2), 8, 3), (255, 0, 0), dtype=np.uint8)
    sheet = np.concatenate([_grid(real[:, shown]), bar, _grid(made[: len(real), shown])], axis=1)
    Image.fromarray(sheet).save(arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
