"""Compare the walks of rendered mazes with real ones: moves, turns, distances from the walls and directions.

    python -m benchmarks.maze_compare ../shared/data/mazes_41/mazes

`benchmarks.render_compare` compares the frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.maze_records import SIZE, RealMaze, carve, column_tangents, depths, read_mazes
from gqn_data.render.maze_cast import BLOCK
from gqn_data.render.maze_walk import SPIN, TURN
from gqn_data.render.mazes import EYE_HEIGHT, FIELD_OF_VIEW, WALL_HEIGHT, sample_maze_scene

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
    def slants(self) -> NDArray[np.float64]:
        """Angles between move and view, 0 to pi, of all moves of more than 0.05 cells after the turn on the spot."""
        cameras = self.cameras[SPIN + 2 :]
        east, north = np.diff(cameras[:, :2], axis=0).T
        angles = np.arctan2(north, east) - cameras[:-1, 2]
        return np.asarray(np.abs(np.mod(angles + np.pi, 2 * np.pi) - np.pi)[self.moves > 0.05])

    @property
    def depths(self) -> NDArray[np.float64]:
        """Depths of the walls in all columns of the frames (views, SIZE), in cells."""
        return depths(self.plan, self.cameras, column_tangents(float(np.tan(FIELD_OF_VIEW / 2))))

    @property
    def cells(self) -> int:
        """Number of cells visited."""
        return len({(int(x), int(y)) for x, y in self.cameras[:, :2]})


def walk_table(real: Sequence[CameraPath], ours: Sequence[CameraPath]) -> str:
    """Return statistics of real walks and ours, as text."""
    lines = [f"percentiles {_PERCENTILES}; lengths in cells"]
    for name, walks in (
        ("real", real),
        ("real, even, fitted", real[::2]),
        ("real, odd", real[1::2]),
        ("ours", ours),
    ):
        moves, turns = np.stack([walk.moves for walk in walks]), np.stack([walk.turns for walk in walks])
        distances = np.stack([walk.wall_distances for walk in walks])
        slants, away = np.concatenate([walk.slants for walk in walks]), np.stack([walk.depths for walk in walks])
        # At 90 degrees the upper half of a column is one unit of depth high.
        sky = np.clip(1 - (WALL_HEIGHT - EYE_HEIGHT) / away, 0, 1).mean(axis=(1, 2))
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
            f"  angle between move and view {_listed(np.percentile(slants, _PERCENTILES))}",
            f"  wall ahead {_listed(np.percentile(away[:, SPIN + 2 :, SIZE // 2], _PERCENTILES))}",
            f"  sky in the upper half {sky.mean():.3f}, standard error {sky.std(ddof=1) / len(walks) ** 0.5:.3f}",
            f"  cells visited {_listed(np.percentile([walk.cells for walk in walks], (0, 50, 100)))}",
        ]
    return "\n".join(lines)


def _listed(values: Sequence[float] | NDArray[np.float64]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def real_walks(mazes: Sequence[RealMaze]) -> list[CameraPath]:
    """Return the walks of real mazes, with floor plans reconstructed from the frames."""
    tangent = float(np.tan(FIELD_OF_VIEW / 2))
    return [CameraPath(maze.cameras, carve(maze, tangent, WALL_HEIGHT - EYE_HEIGHT)) for maze in mazes]


def ours(scenes: int) -> list[CameraPath]:
    """Return the walks of training scenes of seed 0."""
    walks = []
    for index in range(scenes):
        maze, cameras = sample_maze_scene(index, seed=0, split="train", views=_VIEWS)
        walks.append(CameraPath(cameras, maze.layout.cells))
    return walks


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="raw folder of real mazes, with train/ and test/")
    parser.add_argument("--scenes", type=int, default=60, help="number of our scenes in the statistics")
    arguments = parser.parse_args()
    print(walk_table(real_walks(read_mazes(arguments.folder)), ours(arguments.scenes)))


if __name__ == "__main__":
    main()
