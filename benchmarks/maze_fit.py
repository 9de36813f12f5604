"""Fit the constants of the maze renderer to real records: field of view, eye, walls, grid and floor plans.

    python -m benchmarks.maze_fit ../shared/data/mazes

The cameras in the records are exact, so the edges of walls in the frames determine the rest. A first search over field
of view and wall height needs no floor plan: it only requires walls to be on grid lines. Then floor plans are
reconstructed, and all constants are fitted together.

Prints the fitted constants with their deviation between mazes, the residuals in rows, sky colour, JPEG quality, and
the floor plans.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.maze_records import (
    CLEAN_ROWS,
    MIDDLE,
    Plan,
    RealMaze,
    Rows,
    carve,
    column_tangents,
    depths,
    read_mazes,
    wall_feet,
    wall_tops,
)
from gqn_data.render.maze_cast import BLOCK, CORRIDOR, ROOM
from gqn_data.render.maze_layout import SIDE

_FAR = 15.0  # in cells; walls farther away are ignored
_OUTLIER = 3.0  # rows


class Optics(NamedTuple):
    """Parameters that are fitted to the tops of walls.

    Attributes:
        tangent: tangent of half the field of view.
        rise: height of the tops above the eye, in cells, for square pixels.
        shift: offset of the picture's centre, in pixels to the left.
        lift: offset of the horizon, in pixels downwards.
        turn: offset of the yaw.
        east: offset of x, in cells.
        north: offset of y, in cells.
    """

    tangent: float
    rise: float
    shift: float = 0.0
    lift: float = 0.0
    turn: float = 0.0
    east: float = 0.0
    north: float = 0.0


_STEPS = Optics(1e-3, 1e-4, 0.02, 0.01, 1e-3, 1e-3, 1e-3)  # for finite differences


def off_the_grid(mazes: list[RealMaze], tops: list[Rows], tangent: float, rise: float) -> float:
    """Return the mean distance of visible walls from the nearest grid line, in cells, each clipped to 0.1.

    The result is infinite if less than a fifth of the columns show a wall near enough to measure.
    """
    right = column_tangents(tangent)
    away, columns = [], 0
    for maze, rows in zip(mazes, tops):
        x, y, yaw = (maze.cameras[:, k, None] for k in range(3))
        ahead = rise * MIDDLE / (tangent * (MIDDLE - rows))
        east = x + ahead * (np.cos(yaw) + right * np.sin(yaw))
        north = y + ahead * (np.sin(yaw) - right * np.cos(yaw))
        off = np.minimum(np.abs(east - np.round(east)), np.abs(north - np.round(north)))
        away.append(np.minimum(off[ahead < 3], 0.1))
        columns += int(np.isfinite(rows).sum())
    near = np.concatenate(away)
    return float(near.mean()) if near.size > columns / 5 else math.inf


def rough_fit(mazes: list[RealMaze], tops: list[Rows]) -> list[tuple[float, Optics]]:
    """Return, per field of view, the error and the wall height that best puts walls on a grid of raw 0.1."""
    found = []
    for tangent in np.arange(0.36, 1.31, 0.04):
        rises = np.arange(0.2, 1.01, 0.02)
        scores = [off_the_grid(mazes, tops, tangent, rise) for rise in rises]
        best = int(np.argmin(scores))
        found.append((scores[best], Optics(tangent, rises[best])))
    return found


def residuals(maze: RealMaze, tops: Rows, plan: Plan, optics: Optics) -> Rows:
    """Return the differences in rows between expected and observed tops of walls."""
    cameras = maze.cameras + np.array((optics.east, optics.north, optics.turn))
    ahead = depths(plan, cameras, column_tangents(optics.tangent, optics.shift))
    expected = MIDDLE + optics.lift - MIDDLE * optics.rise / (optics.tangent * ahead)
    return np.where((ahead < _FAR) & (expected > 4), expected - tops, np.nan)


def fine_fit(mazes: list[RealMaze], tops: list[Rows], plans: list[Plan], optics: Optics, rounds: int = 10) -> Optics:
    """Fit all of `Optics` by least squares over the tops of walls, without outliers."""

    def all_residuals(at: NDArray[np.float64]) -> NDArray[np.float64]:
        found = [residuals(maze, rows, plan, Optics(*at)) for maze, rows, plan in zip(mazes, tops, plans)]
        return np.concatenate([rows.ravel() for rows in found])

    at, steps = np.array(optics), np.array(_STEPS)
    for _ in range(rounds):
        now = all_residuals(at)
        slopes = np.stack(
            [(all_residuals(at + step) - all_residuals(at - step)) / (2 * step.max()) for step in np.diag(steps)],
            axis=1,
        )
        # The derivative of a column that passes a corner within a step is meaningless.
        good = (np.abs(now) < _OUTLIER) & (np.abs(slopes * steps).max(axis=1) < 1)
        at = at + 0.7 * np.linalg.lstsq(slopes[good], -now[good], rcond=None)[0]
    return Optics(*at)


def refine_plan(maze: RealMaze, tops: Rows, plan: Plan, optics: Optics) -> Plan:
    """Return the floor plan after opening and closing cells as long as the fit of the tops improves."""

    def score(candidate: Plan) -> float:
        return float(np.nansum(np.minimum(np.abs(residuals(maze, tops, candidate, optics)), 5)))

    best, improved = score(plan), True
    while improved:
        improved = False
        for row in range(1, SIDE - 1):
            for column in range(1, SIDE - 1):
                other = plan.copy()
                other[row, column] = BLOCK if plan[row, column] else CORRIDOR
                found = score(other)
                if found < best - 3:
                    plan, best, improved = other, found, True
    return plan


def fit_eye(mazes: list[RealMaze], plans: list[Plan], optics: Optics) -> tuple[float, float, float, float]:
    """Fit the feet of walls.

    Returns:
        Eye height in cells, lift of the horizon and mean error in rows, and deviation of the eye height between mazes.
    """
    away, rows, which = [], [], []
    for number, (maze, plan) in enumerate(zip(mazes, plans)):
        cameras = maze.cameras + np.array((optics.east, optics.north, optics.turn))
        ahead = depths(plan, cameras, column_tangents(optics.tangent, optics.shift))
        feet = wall_feet(maze, MIDDLE + MIDDLE * 0.5 / (optics.tangent * ahead))
        seen = np.isfinite(feet) & (ahead < _FAR)
        away.append(MIDDLE / (optics.tangent * ahead[seen]))
        rows.append(feet[seen])
        which.append(np.full(seen.sum(), number))
    slope, row, owner = np.concatenate(away), np.concatenate(rows), np.concatenate(which)

    def line(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        sides, kept = np.stack([slope, np.ones_like(slope)], axis=1), chosen
        for _ in range(10):
            found = np.linalg.lstsq(sides[kept], row[kept], rcond=None)[0]
            kept = chosen & (np.abs(row - sides @ found) < 2)
        return np.asarray(found)

    eye, horizon = line(np.ones(len(row), dtype=bool))
    each = [line(np.asarray(owner == k))[0] for k in range(len(mazes))]
    return float(eye), float(horizon - MIDDLE), float(np.abs(row - eye * slope - horizon).mean()), float(np.std(each))


def floor_kinds(maze: RealMaze, plan: Plan, optics: Optics, eye: float) -> Plan:
    """Return the floor plan with ROOM where the floor is not the corridors' orange."""
    right = column_tangents(optics.tangent, optics.shift)
    ahead = depths(plan, maze.cameras, right)
    x, y, yaw = (maze.cameras[:, k, None] for k in range(3))
    sums, counts = np.zeros((SIDE, SIDE, 3)), np.zeros((SIDE, SIDE))
    for row in range(int(MIDDLE) + 3, CLEAN_ROWS):
        at = eye * MIDDLE / (optics.tangent * (row + 0.5 - MIDDLE - optics.lift))
        seen = (at < ahead - 0.1) & (at < 4)
        east = (x + at * (np.cos(yaw) + right * np.sin(yaw)))[seen]
        north = (y + at * (np.sin(yaw) - right * np.cos(yaw)))[seen]
        inner = (np.abs(east % 1 - 0.5) < 0.4) & (np.abs(north % 1 - 0.5) < 0.4)
        cells = north[inner].astype(int), east[inner].astype(int)
        np.add.at(sums, cells, maze.frames[:, row][seen][inner])
        np.add.at(counts, cells, 1)
    colour = sums / np.maximum(counts, 1)[..., None]
    other = (counts > 15) & (np.abs(colour - (200, 152, 48)).max(axis=-1) > 26)
    return np.where((plan != BLOCK) & other, ROOM, plan)


def plan_lines(plan: Plan) -> list[str]:
    """Return the floor plan as text, north up: `#` blocks, `.` open cells, `R` rooms."""
    return ["".join("#.R"[kind] for kind in row) for row in plan[::-1]]


def _quality(jpeg: bytes) -> int:
    """Return the libjpeg quality with the quantisation tables of a JPEG; 0 if none matches."""

    def tables(data: bytes) -> list[list[int]]:
        return [list(table) for table in Image.open(io.BytesIO(data)).quantization.values()]  # type: ignore[attr-defined]

    for quality in range(100, 0, -1):
        blank = io.BytesIO()
        Image.new("RGB", (16, 16)).save(blank, "JPEG", quality=quality)
        if tables(blank.getvalue()) == tables(jpeg):
            return quality
    return 0


def main() -> None:
    """Run the fit and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="raw folder of real mazes, with train/ and test/")
    mazes = read_mazes(parser.parse_args().folder)
    tops = [wall_tops(maze) for maze in mazes]
    found = rough_fit(mazes, tops)
    _, rough = min(found)
    print("field of view (degrees), height of walls above the eye and mean distance of walls from grid lines (cells)")
    for off_grid, at in found[::3]:
        print(f"  {2 * math.degrees(math.atan(at.tangent)):5.1f} {at.rise:.2f} {off_grid:.3f}")
    print(f"best {2 * math.degrees(math.atan(rough.tangent)):.1f} {rough.rise:.2f} {min(found)[0]:.3f}")
    plans = [carve(maze, rough.tangent, rough.rise) for maze in mazes]
    optics = fine_fit(mazes, tops, plans, rough)
    plans = [refine_plan(maze, rows, plan, optics) for maze, rows, plan in zip(mazes, tops, plans)]
    optics = fine_fit(mazes, tops, plans, optics)
    each = [fine_fit([maze], [rows], [plan], optics, 4) for maze, rows, plan in zip(mazes, tops, plans)]
    spread = np.std(each, axis=0)
    off = np.concatenate([residuals(*some, optics).ravel() for some in zip(mazes, tops, plans)])
    off = np.abs(off[np.isfinite(off)])
    angle = 2 * np.degrees(np.arctan([optics.tangent, *(one.tangent for one in each)]))
    print(f"field of view {angle[0]:.2f} degrees (fitted per maze: deviation {angle[1:].std():.2f})")
    for name, value, deviation in zip(Optics._fields[1:], optics[1:], spread[1:]):
        print(f"{name} {value:.4f} (deviation {deviation:.4f})")
    print(f"tops of walls: {off.size} columns, mean error {off.mean():.2f} rows, median {np.median(off):.2f},")
    print(f"  {100 * (off > _OUTLIER).mean():.2f} % off by more than {_OUTLIER:.0f}")
    eye, lift, miss, deviation = fit_eye(mazes, plans, optics)
    print(
        f"eye {eye:.4f} cells (deviation {deviation:.4f}), lift {lift:.2f}; feet of walls: mean error {miss:.2f} rows"
    )
    print(f"height of walls {eye + optics.rise:.4f} cells, for square pixels")
    sky, counts = np.unique(
        np.concatenate([maze.frames[:, 3:8, 10:60].reshape(-1, 3) for maze in mazes]), axis=0, return_counts=True
    )
    print(f"sky {sky[counts.argmax()].tolist()}")
    qualities = {_quality(maze.jpegs[0]) for maze in mazes}
    print(
        f"JPEG quality {qualities}, {np.mean([len(jpeg) for maze in mazes for jpeg in maze.jpegs]):.0f} bytes per frame"
    )
    for maze, plan in zip(mazes, plans):
        print(maze.name, *plan_lines(floor_kinds(maze, plan, optics, eye)), sep="\n")


if __name__ == "__main__":
    main()
