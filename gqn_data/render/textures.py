"""Procedural textures of rooms: five walls and three floors.

Patterns, colours and repeats were fitted by eye and by mean colour to real frames (docs/rendering.md). The red, green
and cerise walls are circuit boards, the orange one has circles on panels, the yellow one dashes; the floors have
hexagonal tiles. The textures depend neither on the scene nor on the seed.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Wall = Literal["red", "green", "cerise", "orange", "yellow"]
Floor = Literal["yellow", "white", "blue", "light blue"]
WALLS: tuple[Wall, ...] = ("red", "green", "cerise", "orange", "yellow")
FLOORS: tuple[Floor, ...] = ("yellow", "white", "blue")  # light blue takes the place of blue in one set of rooms

_TRACKS_APART = 4  # texels between the tracks of a circuit board

SIZE = 128  # texels along a side of the finest level; a power of two

Texels = NDArray[np.float32]
_Shade = NDArray[np.float64]

# 0 to 255, as seen in full light.
_WALL_COLOURS: dict[Wall, tuple[int, int, int]] = {
    "red": (222, 128, 107),
    "green": (170, 204, 162),
    "cerise": (178, 69, 109),
    "orange": (246, 125, 8),
    "yellow": (216, 168, 26),
}
_FLOOR_COLOURS: dict[Floor, tuple[int, int, int]] = {
    "yellow": (255, 227, 106),
    "white": (255, 255, 255),
    "blue": (83, 108, 127),
    "light blue": (128, 166, 196),
}


@cache
def wall(name: Wall) -> Texels:
    """Return the mipmap of a wall: float32 (texels of all levels, 3), 0 to 1; the first row is the top of the wall."""
    random = np.random.Generator(np.random.Philox(key=WALLS.index(name)))
    colour = np.array(_WALL_COLOURS[name]) / 255
    if name == "orange":
        return pyramid(_panels(colour))
    if name == "yellow":
        return pyramid(colour * _dashes(random)[..., None])
    return pyramid(colour * _circuits(random)[..., None])


@cache
def floor(name: Floor) -> Texels:
    """Return the mipmap of a floor: float32 (texels of all levels, 3), 0 to 1."""
    random = np.random.Generator(np.random.Philox(key=100 + list(_FLOOR_COLOURS).index(name)))
    blotches = {"yellow": 0.10, "white": 0.03, "blue": 0.15, "light blue": 0.15}[name]
    return pyramid(np.array(_FLOOR_COLOURS[name]) / 255 * _hexagons(random, blotches)[..., None])


def pyramid(finest: _Shade) -> Texels:
    """Return all mipmap levels of a texture, down to one texel; a texel is the mean of four of the level before."""
    levels = [np.clip(finest, 0, 1)]
    while len(levels[-1]) > 1:
        half = len(levels[-1]) // 2
        levels.append(levels[-1].reshape(half, 2, half, 2, 3).mean(axis=(1, 3)))
    return np.concatenate([level.reshape(-1, 3) for level in levels]).astype(np.float32)


def mottle(random: np.random.Generator, cells: int) -> _Shade:
    """Return periodic smooth noise (SIZE, SIZE), mean 0 and deviation 1, with at most `cells` waves per side."""
    spectrum = np.fft.rfft2(random.standard_normal((SIZE, SIZE)))
    up_down = np.fft.fftfreq(SIZE, 1 / SIZE)[:, None]
    left_right = np.fft.rfftfreq(SIZE, 1 / SIZE)[None, :]
    spectrum *= (up_down**2 + left_right**2 <= cells**2) & (up_down**2 + left_right**2 > 0)
    noise = np.fft.irfft2(spectrum, (SIZE, SIZE))
    return np.asarray(noise / noise.std())


def _baseboard(shade: _Shade) -> None:
    """Draw the dark board along the foot of a wall, with a line on it."""
    top = SIZE * 92 // 100
    shade[top:] = 0.74
    shade[top : top + 2] = 0.55
    shade[SIZE - 4 : SIZE - 2] = 0.85


def _circuits(random: np.random.Generator) -> _Shade:
    shade = 1.0 + 0.010 * mottle(random, 12)
    for _ in range(16):  # panels, slightly lighter or darker
        y, x = random.integers(0, SIZE, 2)
        high, wide = random.integers(6, 26, 2)
        tone = random.choice((0.93, 0.97, 1.07))
        shade[np.ix_(np.arange(y, y + high) % SIZE, np.arange(x, x + wide) % SIZE)] *= tone
    for _ in range(5):  # large panels with strokes of both polarities
        y, x = random.integers(0, SIZE, 2)
        high, wide = random.integers(26, 60, 2)
        shade[np.ix_(np.arange(y, y + high) % SIZE, np.arange(x, x + wide) % SIZE)] *= random.choice((0.95, 1.05))
        for stroke in range(8):
            row = y + int(random.integers(2, high - 2))
            columns = x + np.arange(*sorted(random.choice(wide, 2, replace=False)))
            shade[row % SIZE, columns % SIZE] = 0.78 if stroke % 2 else 1.16
    for _ in range(72):  # dark tracks with right-angled turns and a dot at one end
        y, x = random.integers(0, SIZE // _TRACKS_APART, 2) * _TRACKS_APART
        across = random.random() < 0.6
        shade[np.ix_(np.arange(y - 1, y + 2) % SIZE, np.arange(x - 1, x + 2) % SIZE)] = 0.66
        for _ in range(int(random.integers(1, 4))):
            steps = int(random.integers(2, 8)) if across else int(random.integers(1, 5))
            length = steps * _TRACKS_APART * (1 if random.integers(2) else -1)
            run = np.arange(min(0, length), max(0, length) + 1)
            if across:
                shade[y, (x + run) % SIZE] = 0.66
                x = (x + length) % SIZE
            else:
                shade[(y + run) % SIZE, x] = 0.66
                y = (y + length) % SIZE
            across = not across
    _baseboard(shade)
    shade[: SIZE // 50] = 0.62  # the rim along the top
    return np.asarray(shade)


def _dashes(random: np.random.Generator) -> _Shade:
    shade = 0.97 + 0.03 * mottle(random, 16)
    for _ in range(120):  # short dark strokes on a grid
        y, x = 4 * random.integers(0, SIZE // 4, 2)
        high, wide = (3, int(random.integers(4, 9))) if random.integers(2) else (int(random.integers(4, 9)), 3)
        rows, columns = np.arange(y, y + high) % SIZE, np.arange(x, x + wide) % SIZE
        shade[np.ix_(rows, columns)] = random.uniform(0.5, 0.75)
    shade[SIZE * 97 // 100 :] = 0.7
    return np.asarray(shade)


def _panels(colour: _Shade) -> _Shade:
    """Draw the orange wall: four dark discs in rings, linked by lines, and a pale strip at the left edge."""
    texels = np.broadcast_to(colour, (SIZE, SIZE, 3)).copy()
    v, u = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    texels[u < 0.16] = np.array((255, 182, 66)) / 255
    line, dark = np.array((176, 84, 4)) / 255, np.array((172, 80, 4)) / 255
    texels[np.abs(u - 0.165) < 0.006] = line
    middles_u, middles_v = (0.38, 0.80), (0.27, 0.71)
    for middle in middles_v:
        texels[(np.abs(v - middle) < 0.006) & (u > middles_u[0]) & (u < middles_u[1])] = line
    for middle in middles_u:
        texels[(np.abs(u - middle) < 0.006) & (v > middles_v[0]) & (v < middles_v[1])] = line
    for middle_u in middles_u:
        for middle_v in middles_v:
            away = np.hypot(u - middle_u, v - middle_v)
            texels[away < 0.165] = colour
            texels[np.abs(away - 0.165) < 0.008] = line
            texels[away < 0.125] = dark
    texels[int(SIZE * 0.95) :] = colour * 0.8
    return texels


def _hexagons(random: np.random.Generator, blotches: float) -> _Shade:
    """Draw hexagonal tiles with dark seams and a tone per tile, over blotches."""
    across, down = 8, 10  # tiles; an even number of rows repeats seamlessly
    rows, columns = np.mgrid[:down, :across]
    centres_u = ((columns + 0.5 * (rows % 2) + 0.25) / across).ravel()
    centres_v = ((rows + 0.5) / down).ravel()
    v, u = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    du = np.abs(u[..., None] - centres_u)
    dv = np.abs(v[..., None] - centres_v)
    away = np.hypot(np.minimum(du, 1 - du), np.minimum(dv, 1 - dv) * down / across * 0.866)
    nearest = away.argmin(axis=-1)
    two = np.partition(away, 1, axis=-1)
    seam = np.clip((two[..., 1] - two[..., 0]) * across / 0.14, 0, 1)
    tones = random.uniform(-1, 1, across * down)[nearest]
    cover = 0.35 * tones + 0.65 * np.clip(mottle(random, 3), -1.2, 1.2)
    return np.asarray((1 - blotches / 2 + blotches / 2 * cover) * (0.90 + 0.10 * seam))
