"""A walk through a maze, as a player of a game takes it: a turn on the spot, then from place to place.

The real cameras are those of a player whose keys drive and turn him, fifteen views a second, braked by the floor and
stopped by walls. The movement was fitted to them (docs/rendering.md); where ours wants to go is our own. Positions
are in cells. Imports numpy, `maze_cast` and `maze_layout`.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.maze_cast import BLOCK, ROOM
from gqn_data.render.maze_layout import Layout

# Every turn of the real cameras is 0, 1 or 2 times this, 4.4 degrees: once for this view's key, once for the last's.
TURN = 0.0767944871
# The player is a square box; the real ones never come closer to a wall, and often stand there.
CLEARANCE = 0.16125
_PLAYER = CLEARANCE - 1e-9  # who touches a wall is not in it
SPIN = 42  # double turns on the spot before the first move: once around and one more
# Moves between views; 4 moments of 1/60 s each.
_MOMENTS, _MOMENT = 4, 1 / 60
_SPEED = 3.2  # cells a second: the longest real steps are 0.213 cells
_FRICTION = 6.0  # of the speed, a second: free steps shrink to 0.67 of the last
_STOP_SPEED = 1.0  # friction is never less than that of this speed
_DRIVE = 10.0  # of the wanted speed, a second

# The mind; chosen so that turns, steps and places are spread as the real ones are.
_REACHED = 0.45  # cells from a waypoint
_BODY = 0.25  # half the width that a straight way must have
_EAGER = 0.55  # chance of turning towards the wanted direction, a radian off it
_SLOWER = 0.3  # chance of letting go of a key that was pressed
_WANDER, _WANDER_KEPT = 0.2, 0.92  # the wanted direction's wandering about the way, a view
_LOOKS, _RESTS = 0.006, 0.012  # chances of beginning to look around, and to stand still, a view
_AHEAD, _ASIDE = 0.7, 2.2  # up to so far off the way the player pushes forward, and sideways


def walk(random: np.random.Generator, layout: Layout, views: int) -> NDArray[np.float64]:
    """The places and directions (views, 3) of a walk: x, y in cells, yaw in (-pi, pi].

    A longer walk from the same generator begins with the same views.
    """
    rooms = np.argwhere(layout.cells == ROOM)
    row, column = rooms[random.integers(len(rooms))]
    player = _Player(layout.cells, column + 0.5, row + 0.5)
    mind = _Mind(random, layout.cells, player)
    yaw, key = random.uniform(-math.pi, math.pi), 1
    seen = np.empty((views, 3))
    for view in range(views):
        seen[view] = player.x, player.y, yaw
        if view < SPIN:
            yaw = _wrapped(yaw + 2 * TURN)
            continue
        last, (key, push) = key, mind.keys(yaw)
        yaw = _wrapped(yaw + TURN * (last + key))
        for _ in range(_MOMENTS):
            player.move(None if push is None else yaw + push)
    return seen


def _wrapped(angle: float) -> float:
    return math.pi - (math.pi - angle) % (2 * math.pi)


class _Player:
    """A square box that slides along walls."""

    def __init__(self, cells: NDArray[np.int64], x: float, y: float) -> None:
        self._blocks = (cells == BLOCK).tolist()
        self.x, self.y = float(x), float(y)
        self._vx = self._vy = 0.0

    def move(self, towards: float | None) -> None:
        """One moment: braked, driven in a direction (None: not), and stopped by walls."""
        speed = math.hypot(self._vx, self._vy)
        if speed > 0:
            kept = max(0.0, speed - max(speed, _STOP_SPEED) * _FRICTION * _MOMENT) / speed
            self._vx, self._vy = self._vx * kept, self._vy * kept
        if towards is not None:
            dx, dy = math.cos(towards), math.sin(towards)
            lacking = _SPEED - (self._vx * dx + self._vy * dy)
            gain = max(0.0, min(lacking, _DRIVE * _MOMENT * _SPEED))
            self._vx, self._vy = self._vx + gain * dx, self._vy + gain * dy
        x = self.x + self._vx * _MOMENT
        if self._hits(x, self.y):
            x, self._vx = _before_border(x, self._vx), 0.0
        self.x = x
        y = self.y + self._vy * _MOMENT
        if self._hits(self.x, y):
            y, self._vy = _before_border(y, self._vy), 0.0
        self.y = y

    def could_go(self, to: tuple[float, float], half: float) -> bool:
        """Whether no block stands in the straight way of a box to a place."""
        steps = math.ceil(math.dist((self.x, self.y), to) / 0.2)
        dx, dy = (to[0] - self.x) / max(steps, 1), (to[1] - self.y) / max(steps, 1)
        return not any(self._hits(self.x + k * dx, self.y + k * dy, half) for k in range(1, steps + 1))

    def _hits(self, x: float, y: float, half: float = _PLAYER) -> bool:
        rows = self._blocks[math.floor(y - half)], self._blocks[math.floor(y + half)]
        left, right = math.floor(x - half), math.floor(x + half)
        return any(row[left] or row[right] for row in rows)


def _before_border(place: float, speed: float) -> float:
    """Where the box touches the border of cells that it would cross at `place`."""
    if speed > 0:
        return math.floor(place + CLEARANCE) - CLEARANCE
    return math.ceil(place - CLEARANCE) + CLEARANCE


class _Mind:
    """Where the player wants to go: to one open cell after another, chosen by chance, with looks around on the way."""

    def __init__(self, random: np.random.Generator, cells: NDArray[np.int64], player: _Player) -> None:
        self._random, self._player = random, player
        self._open = {(int(column), int(row)) for row, column in np.argwhere(cells != BLOCK)}
        self._places = sorted(self._open)
        self._way: list[tuple[float, float]] = []
        self._goal = self._places[0]
        self._wobble = 0.0
        self._looking = self._look = self._last = self._resting = 0

    def keys(self, yaw: float) -> tuple[int, float | None]:
        """The turning key (-1, 0, 1, counter-clockwise) and the direction pushed in, from the view, or None."""
        chance = self._random.random(7).tolist()
        x, y = self._waypoint()
        rest = _wrapped(math.atan2(y - self._player.y, x - self._player.x) - yaw)
        self._wobble = _WANDER_KEPT * self._wobble + _WANDER * (2 * chance[0] - 1)
        if self._looking:
            self._looking -= 1
            key = self._look
        elif chance[1] < _LOOKS:
            self._looking, self._look = 6 + int(24 * chance[2]), (1 if chance[3] < 0.5 else -1)
            key = self._look
        else:
            error = rest + self._wobble
            # The farther off the wanted direction, the surer the key.
            surely = chance[2] < _EAGER * abs(error)
            key = (1 if error > 0 else -1) if surely else int(3 * chance[3]) - 1
            if key == self._last and chance[6] < _SLOWER:
                key = 0
        self._last = key
        if self._resting:
            self._resting -= 1
            return key, None
        if chance[4] < _RESTS:
            self._resting = 2 + int(9 * chance[5])
        if abs(rest) < _AHEAD:
            return key, 0.0 if chance[5] < 0.97 else None
        if abs(rest) < _ASIDE:
            return key, math.copysign(math.pi / 2, rest) if chance[5] < 0.4 else 0.0 if chance[5] < 0.5 else None
        return key, math.pi if chance[5] < 0.2 else None

    def _waypoint(self) -> tuple[float, float]:
        """The next place to go to."""
        at = self._player.x, self._player.y
        while self._way and math.dist(at, self._way[0]) < _REACHED:
            self._way.pop(0)
        if not self._way:
            self._goal = self._places[self._random.integers(len(self._places))]
        if not self._way or not self._player.could_go(self._way[0], _PLAYER):
            cells = self._path((math.floor(at[0]), math.floor(at[1])), self._goal)
            aside = self._random.uniform(-0.2, 0.2, (len(cells), 2))
            self._way = [(column + 0.5 + a, row + 0.5 + b) for (column, row), (a, b) in zip(cells, aside.tolist())]
        while len(self._way) > 1 and self._player.could_go(self._way[1], _BODY):
            self._way.pop(0)
        return self._way[0]

    def _path(self, start: tuple[int, int], goal: tuple[int, int]) -> list[tuple[int, int]]:
        """The cells of a shortest way, the goal last, the start left out but where it is the goal."""
        before = {goal: goal}
        queue = deque([goal])
        while start not in before:
            cell = queue.popleft()
            for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                there = cell[0] + across, cell[1] + up
                if there in self._open and there not in before:
                    before[there] = cell
                    queue.append(there)
        cells = [start]
        while cells[-1] != goal:
            cells.append(before[cells[-1]])
        return cells[1:] or [goal]
