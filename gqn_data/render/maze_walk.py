"""Camera walks through mazes: a turn on the spot, then from one open cell to another.

The real cameras belong to a player that is driven and turned by keys at 15 views per second, slowed by friction and
stopped by walls. The movement was fitted to them (docs/rendering.md); the choice of goals is original. Positions are
in cells.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.maze_cast import BLOCK, ROOM
from gqn_data.render.maze_layout import Cell, Layout

# 4.4 degrees. Each turn of the real cameras is 0, 1 or 2 times this: once for the key of this view, once for the last.
TURN = 0.0767944871
# Half the side of the player's square box. Real cameras never come closer to a wall, and are often this close.
CLEARANCE = 0.16125
_PLAYER = CLEARANCE - 1e-9  # touching a wall is not a collision
SPIN = 42  # double turns on the spot before the first move: one more than a full circle
# Physics steps per view, and their length in seconds.
_STEPS, _STEP = 4, 1 / 60
_SPEED = 3.2  # cells per second: the longest real moves are 0.213 cells per view
_FRICTION = 6.0  # fraction of the speed lost per second: free moves shrink to 0.67 of the last
_STOP_SPEED = 1.0  # minimum speed in the friction term
_ACCELERATION = 10.0  # fraction of the target speed gained per second

# The policy, fitted to turns, moves, distances from walls and directions of the real walks.
_WAYPOINT_RADIUS = 0.7  # a waypoint within this distance counts as reached, in cells
_WAYPOINT_OFFSET = 0.2  # largest distance of a waypoint from the middle of its cell, along x and y
_PATH_HALF_WIDTH = 0.26  # half the width that a shortcut must have
_GOALS = 4  # number of random cells; the player goes to the cell with the smallest turn
_TURN_RATE = 0.95  # probability of turning towards the target direction, per radian of error
_RELEASE = 0.23  # probability of releasing a pressed key
_WANDER, _WANDER_KEPT = 0.14, 0.77  # drift of the target direction per view, and the fraction that is kept
_LOOKS, _RESTS = 0.003, 0.009  # probabilities per view of starting to look around, and to stand still
_AHEAD, _ASIDE = 0.53, 1.5  # angles to the waypoint: up to the first it is ahead, to the second aside, then behind
# Probabilities of a push: forward if it is ahead, sideways and sideways or forward if aside, back if behind.
_PUSH_AHEAD, _PUSH_SIDEWAYS, _PUSH_ASIDE, _PUSH_BACK = 0.65, 0.32, 0.75, 0.08


def walk(random: np.random.Generator, layout: Layout, views: int) -> NDArray[np.float64]:
    """Sample the cameras (views, 3) of a walk: x, y in cells, yaw in (-pi, pi].

    A longer walk from the same generator starts with the same views.
    """
    rooms = np.argwhere(layout.cells == ROOM)
    row, column = rooms[random.integers(len(rooms))]
    player = _Player(layout.cells, column + 0.5, row + 0.5)
    policy = _Policy(random, layout.cells, player)
    yaw, key = random.uniform(-math.pi, math.pi), 1
    cameras = np.empty((views, 3))
    for view in range(views):
        cameras[view] = player.x, player.y, yaw
        if view < SPIN:
            yaw = _wrap_angle(yaw + 2 * TURN)
            continue
        last, (key, push) = key, policy.keys(yaw)
        yaw = _wrap_angle(yaw + TURN * (last + key))
        for _ in range(_STEPS):
            player.move(None if push is None else yaw + push)
    return cameras


def _wrap_angle(angle: float) -> float:
    return math.pi - (math.pi - angle) % (2 * math.pi)


class _Player:
    """A square box with inertia that slides along walls."""

    def __init__(self, cells: NDArray[np.int64], x: float, y: float) -> None:
        self._blocks = (cells == BLOCK).tolist()
        self.x, self.y = float(x), float(y)
        self._vx = self._vy = 0.0

    def move(self, towards: float | None) -> None:
        """Advance one physics step: friction, acceleration in a direction (None for none), and collision with walls."""
        speed = math.hypot(self._vx, self._vy)
        if speed > 0:
            kept = max(0.0, speed - max(speed, _STOP_SPEED) * _FRICTION * _STEP) / speed
            self._vx, self._vy = self._vx * kept, self._vy * kept
        if towards is not None:
            dx, dy = math.cos(towards), math.sin(towards)
            lacking = _SPEED - (self._vx * dx + self._vy * dy)
            gain = max(0.0, min(lacking, _ACCELERATION * _STEP * _SPEED))
            self._vx, self._vy = self._vx + gain * dx, self._vy + gain * dy
        x = self.x + self._vx * _STEP
        if self._hits(x, self.y):
            x, self._vx = _touch_border(x, self._vx), 0.0
        self.x = x
        y = self.y + self._vy * _STEP
        if self._hits(self.x, y):
            y, self._vy = _touch_border(y, self._vy), 0.0
        self.y = y

    def has_clear_path(self, to: tuple[float, float], half: float) -> bool:
        """Return whether a box with half side `half` can move straight to a point."""
        steps = math.ceil(math.dist((self.x, self.y), to) / 0.2)
        dx, dy = (to[0] - self.x) / max(steps, 1), (to[1] - self.y) / max(steps, 1)
        return all(not self._hits(self.x + k * dx, self.y + k * dy, half) for k in range(1, steps + 1))

    def _hits(self, x: float, y: float, half: float = _PLAYER) -> bool:
        # Most of the time of a walk is spent here, so the four corners are spelled out.
        low, high = self._blocks[math.floor(y - half)], self._blocks[math.floor(y + half)]
        left, right = math.floor(x - half), math.floor(x + half)
        return bool(low[left] or low[right] or high[left] or high[right])


def _touch_border(position: float, speed: float) -> float:
    """Return the coordinate at which the box touches the cell border that it would cross at `position`."""
    if speed > 0:
        return math.floor(position + CLEARANCE) - CLEARANCE
    return math.ceil(position - CLEARANCE) + CLEARANCE


class _Policy:
    """Policy of the player: it visits random open cells one after another, and looks around on the way."""

    def __init__(self, random: np.random.Generator, cells: NDArray[np.int64], player: _Player) -> None:
        self._random, self._player = random, player
        self._open = {(int(column), int(row)) for row, column in np.argwhere(cells != BLOCK)}
        self._cells = sorted(self._open)
        self._waypoints: list[tuple[float, float]] = []
        self._goal = self._cells[0]
        self._wobble = 0.0
        self._looking = self._look = self._last = self._resting = 0

    def keys(self, yaw: float) -> tuple[int, float | None]:
        """Return the keys of the next view.

        Returns:
            Turn (-1, 0 or 1, counter-clockwise), and the direction of the push relative to the view, or None.
        """
        chance = self._random.random(7).tolist()
        x, y = self._waypoint(yaw)
        bearing = _wrap_angle(math.atan2(y - self._player.y, x - self._player.x) - yaw)
        self._wobble = _WANDER_KEPT * self._wobble + _WANDER * (2 * chance[0] - 1)
        if self._looking:
            self._looking -= 1
            key = self._look
        elif chance[1] < _LOOKS:
            self._looking, self._look = 6 + int(24 * chance[2]), (1 if chance[3] < 0.5 else -1)
            key = self._look
        else:
            error = bearing + self._wobble
            # The larger the error, the more likely the key is pressed.
            corrects = chance[2] < _TURN_RATE * abs(error)
            key = (1 if error > 0 else -1) if corrects else int(3 * chance[3]) - 1
            if key == self._last and chance[6] < _RELEASE:
                key = 0
        self._last = key
        if self._resting:
            self._resting -= 1
            return key, None
        if chance[4] < _RESTS:
            self._resting = 2 + int(9 * chance[5])
        if abs(bearing) < _AHEAD:
            return key, 0.0 if chance[5] < _PUSH_AHEAD else None
        if abs(bearing) < _ASIDE:
            sideways = math.copysign(math.pi / 2, bearing)
            return key, sideways if chance[5] < _PUSH_SIDEWAYS else 0.0 if chance[5] < _PUSH_ASIDE else None
        return key, math.pi if chance[5] < _PUSH_BACK else None

    def _waypoint(self, yaw: float) -> tuple[float, float]:
        """Return the next waypoint; plan a new path if the last one is finished or blocked."""
        at = self._player.x, self._player.y
        while self._waypoints and math.dist(at, self._waypoints[0]) < _WAYPOINT_RADIUS:
            self._waypoints.pop(0)
        goals: list[Cell] = []
        if not self._waypoints:
            goals = [self._cells[k] for k in self._random.integers(len(self._cells), size=_GOALS).tolist()]
        elif not self._player.has_clear_path(self._waypoints[0], _PLAYER):
            goals = [self._goal]
        if goals:
            paths = self._paths((math.floor(at[0]), math.floor(at[1])), goals)
            cells = min(paths, key=lambda path: self._turn(path, yaw))
            self._goal = cells[-1]
            aside = self._random.uniform(-_WAYPOINT_OFFSET, _WAYPOINT_OFFSET, (len(cells), 2))
            self._waypoints = [
                (column + 0.5 + a, row + 0.5 + b) for (column, row), (a, b) in zip(cells, aside.tolist())
            ]
        while len(self._waypoints) > 1 and self._player.has_clear_path(self._waypoints[1], _PATH_HALF_WIDTH):
            self._waypoints.pop(0)
        return self._waypoints[0]

    def _turn(self, path: list[Cell], yaw: float) -> float:
        """Return the angle between the view and the second cell of a path, or the first if it is the only one."""
        column, row = path[:2][-1]
        return abs(_wrap_angle(math.atan2(row + 0.5 - self._player.y, column + 0.5 - self._player.x) - yaw))

    def _paths(self, start: Cell, goals: list[Cell]) -> list[list[Cell]]:
        """Return a shortest path to each goal, which is last; the start is left out unless it is the goal."""
        before, queue = {start: start}, deque([start])
        while queue and not all(goal in before for goal in goals):
            column, row = cell = queue.popleft()
            for neighbour in ((column + 1, row), (column - 1, row), (column, row + 1), (column, row - 1)):
                if neighbour in self._open and neighbour not in before:
                    before[neighbour] = cell
                    queue.append(neighbour)
        paths = []
        for goal in goals:
            cells = [goal]
            while before[cells[-1]] != start:
                cells.append(before[cells[-1]])
            paths.append(cells[::-1])
        return paths
