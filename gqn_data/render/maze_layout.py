"""Floor plans of mazes: one or two rooms on a grid of 7 by 7 cells, corridors, and blocks elsewhere.

Rooms start and end at odd cells (the border is 0 and 8), corridors grow between odd cells, doors join the regions on
the two sides of a block, and corridors never end blind. The 41 real mazes that were reconstructed from frames have
these properties (docs/rendering.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.maze_cast import BLOCK, CORRIDOR, ROOM

SIDE = 9  # in cells, with the blocks of the border

Cell = tuple[int, int]  # column, row

# Of the 70 rooms in real mazes with two, 37 are 3 by 3, 33 are 3 by 5 or 5 by 3, and none is 5 by 5. Larger ones are
# drawn more often here, because they find a free place less often.
_ROOM_SIZES = ((3, 3), (3, 5), (5, 3))
_ROOM_SHARES = (0.45, 0.275, 0.275)
_MAX_ROOMS = 2  # a room in the middle leaves no space for a second
_RETRIED = 0.4  # share of mazes with one room that are drawn again: 6 of the 41 real mazes have one
# Numbers of doors that close a loop, in mazes with two rooms.
_EXTRA_DOORS, _EXTRA_SHARES = (1, 2, 3), (0.2, 0.7, 0.1)
_TRIES = 40
_LEVEL, _UPRIGHT = (1, 0), (0, 1)


@dataclass(frozen=True, kw_only=True)
class Room:
    """A rectangle of open cells.

    Attributes:
        corner: smallest column and row, both odd.
        size: numbers of columns and rows, both odd.
    """

    corner: Cell
    size: tuple[int, int]

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of the room."""
        (left, low), (wide, high) = self.corner, self.size
        return ((column, row) for row in range(low, low + high) for column in range(left, left + wide))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The floor plan of a maze.

    Attributes:
        cells: read-only int64 (SIDE, SIDE), by row and column: BLOCK, CORRIDOR or ROOM.
        rooms: one or two rooms.
    """

    cells: NDArray[np.int64]
    rooms: tuple[Room, ...]


def sample_layout(random: np.random.Generator) -> Layout:
    """Sample a maze in which every open cell can be reached from every other."""
    rooms = _place_rooms(random)
    while len(rooms) < _MAX_ROOMS and random.random() < _RETRIED:
        rooms = _place_rooms(random)
    cells = np.full((SIDE, SIDE), BLOCK, dtype=np.int64)
    for room in rooms:
        for column, row in room.cells():
            cells[row, column] = ROOM
    regions = _regions(random, cells, rooms)
    # In the real mazes two rooms are joined in two to four ways; a single room has at most one
    # corridor, which leads back to it.
    two = len(rooms) == _MAX_ROOMS
    extra_doors = int(random.choice(_EXTRA_DOORS, p=_EXTRA_SHARES) if two else random.integers(0, 2))
    _open_doors(random, cells, regions, extra_doors)
    _fill_dead_ends(cells)
    cells.flags.writeable = False
    return Layout(cells=cells, rooms=rooms)


def _place_rooms(random: np.random.Generator) -> tuple[Room, ...]:
    rooms: list[Room] = []
    taken: set[Cell] = set()
    for _ in range(_TRIES):
        wide, high = _ROOM_SIZES[random.choice(len(_ROOM_SIZES), p=_ROOM_SHARES)]
        left, low = (1 + 2 * int(random.integers((SIDE - 1 - size) // 2 + 1)) for size in (wide, high))
        room = Room(corner=(left, low), size=(wide, high))
        if taken.isdisjoint(room.cells()):
            rooms.append(room)
            taken.update(room.cells())
        if len(rooms) == _MAX_ROOMS:
            break
    return tuple(rooms)


def _regions(random: np.random.Generator, cells: NDArray[np.int64], rooms: tuple[Room, ...]) -> dict[Cell, int]:
    """Fill the rest of the grid with corridors without loops; return the room or corridor tree of each open cell."""
    regions = {cell: number for number, room in enumerate(rooms) for cell in room.cells()}
    number = len(rooms)
    odd = [(column, row) for row in range(1, SIDE, 2) for column in range(1, SIDE, 2)]
    for start in (odd[k] for k in random.permutation(len(odd))):
        if start in regions:
            continue
        regions[start], trail = number, [start]
        while trail:
            column, row = trail[-1]
            ways = [
                (column + 2 * across, row + 2 * up)
                for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1))
                if 0 < column + 2 * across < SIDE and 0 < row + 2 * up < SIDE
            ]
            ways = [way for way in ways if way not in regions]
            if not ways:
                trail.pop()
                continue
            neighbour = ways[random.integers(len(ways))]
            regions[(column + neighbour[0]) // 2, (row + neighbour[1]) // 2] = number
            regions[neighbour] = number
            trail.append(neighbour)
        number += 1
    for (column, row), region in regions.items():
        if region >= len(rooms):
            cells[row, column] = CORRIDOR
    return regions


def _open_doors(random: np.random.Generator, cells: NDArray[np.int64], regions: dict[Cell, int], extra: int) -> None:
    """Join all regions with doors, and open `extra` more doors; two doors are never adjacent."""
    doors = []
    for row in range(1, SIDE - 1):
        for column in range(1, SIDE - 1):
            if (column, row) in regions:
                continue
            for across, up in (_LEVEL, _UPRIGHT):
                sides = [regions.get((column + k * across, row + k * up)) for k in (-1, 1)]
                if None not in sides and sides[0] != sides[1]:
                    doors.append(((column, row), sides[0], sides[1]))
    joined = {region: region for region in regions.values()}
    unused = []
    for door in (doors[k] for k in random.permutation(len(doors))):
        (column, row), one, other = door
        if joined[one] == joined[other]:
            unused.append((column, row))
            continue
        old, new = joined[other], joined[one]
        joined = {region: new if root == old else root for region, root in joined.items()}
        cells[row, column] = CORRIDOR
        regions[column, row] = -1
    for column, row in unused:
        beside = ((column + 1, row), (column - 1, row), (column, row + 1), (column, row - 1))
        if extra and (column, row) not in regions and all(regions.get(cell) != -1 for cell in beside):
            cells[row, column] = CORRIDOR
            regions[column, row] = -1
            extra -= 1


def _fill_dead_ends(cells: NDArray[np.int64]) -> None:
    """Fill corridors from their dead ends back, until none is left."""
    changed = True
    while changed:
        changed = False
        for row in range(1, SIDE - 1):
            for column in range(1, SIDE - 1):
                beside = (
                    cells[row, column + 1],
                    cells[row, column - 1],
                    cells[row + 1, column],
                    cells[row - 1, column],
                )
                if cells[row, column] == CORRIDOR and sum(kind != BLOCK for kind in beside) < 2:
                    cells[row, column] = BLOCK
                    changed = True
