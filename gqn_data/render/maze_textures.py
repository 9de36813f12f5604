"""Procedural textures of mazes: 16 walls and 22 floors, each repeated once per cell.

Kinds of pattern, colours and contrast were fitted to real frames with rectified walls and floors (docs/rendering.md);
the patterns are original. The textures depend neither on the scene nor on the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.textures import SIZE as _COARSE
from gqn_data.render.textures import Texels, mottle, pyramid

# Texels along a side of the finest level, a power of two. A player at a wall sees a third of a cell.
SIZE = 256
_FINE = SIZE // _COARSE  # patterns use a grid of 128 by 128, with lines as thin as a texel

_Shade = NDArray[np.float64]  # (SIZE, SIZE)
_Colours = NDArray[np.float64]  # (SIZE, SIZE, 3), 0 to 255
_Colour = tuple[int, int, int]

_V, _U = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE


class _Pattern(NamedTuple):
    """One texture: the function that makes its texels from a random stream, and its main colour, 0 to 255."""

    make: Callable[[np.random.Generator, _Shade], _Colours]
    colour: _Colour


def _foot(texels: _Colours, colour: _Colour, share: float, part: float) -> None:
    """Mix a colour into the bottom of a wall, increasingly downwards."""
    low = np.clip((_V - (1 - part)) / part * 2, 0, 1)[..., None] * share
    texels[:] = texels * (1 - low) + np.array(colour) * low


def _mottle(random: np.random.Generator, cells: int) -> _Shade:
    return np.asarray(np.kron(mottle(random, cells), np.ones((_FINE, _FINE))))


def _tone(shade: _Shade, row: float, column: float, high: float, wide: float, tone: float) -> None:
    """Multiply a rectangle by `tone`, in units of the grid of 128, wrapped at the border of the texture."""
    rows = np.arange(round(row * _FINE), round((row + high) * _FINE)) % SIZE
    columns = np.arange(round(column * _FINE), round((column + wide) * _FINE)) % SIZE
    shade[np.ix_(rows, columns)] *= tone


def _line(shade: _Shade, row: float, column: float, length: float, across: bool, wide: float, tone: float) -> None:
    """Multiply a straight line by `tone`."""
    _tone(shade, row, column, *((wide, length) if across else (length, wide)), tone)


def _around(u: float, v: float, reach: float) -> tuple[tuple[NDArray[np.intp], ...], _Shade]:
    """Return index and distance of the texels within `reach` of a point in rows and columns, in shares of the side.

    The texture is wrapped at its border; `reach` is below a half.
    """
    sides = [np.arange(math.floor((at - reach) * SIZE), math.ceil((at + reach) * SIZE)) for at in (v, u)]
    dv, du = ((side + 0.5) / SIZE - at for side, at in zip(sides, (v, u)))
    return np.ix_(*(side % SIZE for side in sides)), np.hypot(dv[:, None], du)


def _tracks(random: np.random.Generator, colour: _Shade) -> _Colours:
    """Draw a panel with a few broad grooves with right-angled turns, over a faint diagonal plaid."""
    plaid = np.sin(2 * np.pi * (4 * _U + 4 * _V)) + np.sin(2 * np.pi * (3 * _U - 3 * _V))
    shade = 1.0 + 0.022 * plaid + 0.015 * _mottle(random, 12)
    for row, column, length, across in (
        (30, 22, 84, True),
        (30, 22, 52, False),
        (82, 22, 40, True),
        (82, 62, 30, False),
        (30, 104, 36, False),
        (66, 84, 24, True),
        (66, 84, 30, False),
        (96, 84, 44, True),
        (96, 0, 8, True),
        (0, 50, 30, False),
    ):
        _line(shade, row, column, length, across, 4, 0.92)
        _line(shade, row + 1, column + 1, length, across, 1.5, 0.8)
    _line(shade, 0, 126.5, 128, False, 3, 0.8)
    _line(shade, 0, 0, 128, True, 4, 0.88)
    texels = shade[..., None] * colour
    texels[int(0.945 * SIZE) :] *= 0.5
    return np.asarray(texels)


def _discs(random: np.random.Generator, colour: _Shade) -> _Colours:
    """Draw four dark discs in pale rings that are linked by lines, and a pale strip at both edges."""
    shade = 1.0 + 0.01 * _mottle(random, 16)
    pale = np.clip((0.085 - np.minimum(_U, 1 - _U)) / 0.02, 0, 1)
    shade *= 1 + 0.26 * pale
    shade[np.abs(np.minimum(_U, 1 - _U) - 0.092) < 0.01] *= 0.9
    low, high = 0.275, 0.725
    links = np.zeros((SIZE, SIZE))
    links[(np.abs(_V - low) < 0.008) & (np.abs(_U - 0.5) < 0.225)] = 1
    for middle in (low, high):
        links[(np.abs(_U - middle) < 0.008) & (np.abs(_V - 0.5) < 0.225)] = 1
    shade *= 1 + 0.3 * links
    for middle_u in (low, high):
        for middle_v in (low, high):
            away = np.hypot(_U - middle_u, _V - middle_v)
            shade[away < 0.17] = 1.0
            shade[np.abs(away - 0.163) < 0.009] = 1.33
            shade[away < 0.128] = 0.64
    shade[_V < 0.02] *= 0.88
    return np.asarray(shade[..., None] * colour)


def _blocks(contrast: float) -> Callable[[np.random.Generator, _Shade], _Colours]:
    """Return a function that draws bricks two by one in pairs of alternating orientation, some darker."""

    def make(random: np.random.Generator, colour: _Shade) -> _Colours:
        shade = 1.0 + 0.02 * _mottle(random, 24)
        for row in range(8):
            for column in range(8):
                upright = (row + column) % 2 == 1
                high, wide = (16, 8) if upright else (8, 16)
                for part in range(2):
                    # Joints between pairs are offset from row to row.
                    top, left = 16 * row + part * (16 - high), 16 * column + part * (16 - wide) + 5 * row
                    tone = random.choice((-0.45, -0.1, 0.0, 0.15, 0.3, 0.45), p=(0.1, 0.2, 0.3, 0.2, 0.1, 0.1))
                    _tone(shade, top, left, high, wide, 1 + contrast * tone)
                    _tone(shade, top, left, high, 1, 1 - 0.5 * contrast)
                    _tone(shade, top, left, 1, wide, 1 - 0.5 * contrast)
        return np.asarray(shade[..., None] * colour)

    return make


def _tiles(random: np.random.Generator, colour: _Shade) -> _Colours:
    """Draw square tiles with pale seams, one in six of them darker."""
    across = 11
    rows, columns = np.floor(_V * across).astype(int), np.floor(_U * across).astype(int)
    dark = random.random((across, across)) < 0.17
    tones = np.where(dark, 0.86, 1.0) + random.uniform(-0.02, 0.03, (across, across))
    texels = tones[rows, columns][..., None] * colour
    seam = np.maximum(np.abs(_U * across % 1 - 0.5), np.abs(_V * across % 1 - 0.5)) > 0.5 - 0.055
    texels[seam] = 0.72 * texels[seam] + 0.28 * np.array((255, 228, 150))
    return np.asarray(texels)


def _circuits(foot: _Colour, panels: int) -> Callable[[np.random.Generator, _Shade], _Colours]:
    """Return a function that draws faint panels, many thin dark tracks with pads, and a coloured band at the foot."""

    def make(random: np.random.Generator, colour: _Shade) -> _Colours:
        shade = 1.0 + 0.035 * _mottle(random, 24)
        for _ in range(panels):
            row, column = random.integers(0, 128, 2)
            high, wide = random.integers(10, 44, 2)
            _tone(shade, row, column, high, wide, random.choice((0.93, 1.06)))
        for _ in range(54):
            row, column = 4 * random.integers(0, 32, 2)
            across = bool(random.integers(3))  # two in three are horizontal
            length = int(random.integers(12, 44))
            _line(shade, row, column, length, across, 1.8, 0.77)
            _tone(shade, row - 1, column - 1, 3.5, 3.5, 0.87)
        texels = np.maximum(shade, 0.72)[..., None] * colour  # crossings are not darker
        texels[: SIZE // 32] *= 0.88
        _foot(texels, foot, 0.75, 0.09)
        texels[int(0.975 * SIZE) :] *= 0.8
        return np.asarray(texels)

    return make


def _cloth(random: np.random.Generator, colour: _Shade) -> _Colours:
    """Draw soft squares, eight per side, with little contrast."""
    squares = np.sin(2 * np.pi * 8 * _U) * np.sin(2 * np.pi * 8 * _V) + 0.5 * np.sin(2 * np.pi * 16 * _U)
    return np.asarray(colour + (5.5 * squares + 3.0 * _mottle(random, 40))[..., None])


def _spots(random: np.random.Generator, colour: _Shade) -> _Colours:
    """Draw small white spots of varying brightness on a plain ground."""
    shade = 2.0 * _mottle(random, 8)
    for _ in range(44):
        u, v = random.random(2)
        at, away = _around(u, v, reach=0.2)
        shade[at] += random.uniform(10, 36) * np.exp(-((away / random.uniform(0.03, 0.05)) ** 2))
    return np.asarray(colour + np.minimum(shade, 42)[..., None])


def _lawn(random: np.random.Generator, colour: _Shade) -> _Colours:
    """Draw broad soft blotches, lighter and darker, slanted."""
    blotches = _mottle(random, 5)
    slanted = np.stack([np.roll(row, -k // 2) for k, row in enumerate(blotches)])
    return np.asarray(colour + np.clip(9.0 * slanted + 5.0 * _mottle(random, 50), -24, 24)[..., None])


def _dots(dark: float) -> Callable[[np.random.Generator, _Shade], _Colours]:
    """Return a function that draws rows of round dots, each offset by half a dot; clusters of dots are darker."""

    def make(random: np.random.Generator, colour: _Shade) -> _Colours:
        across, down = 8, 10
        rows, columns = np.mgrid[:down, :across]
        middles_u = ((columns + 0.5 * (rows % 2) + 0.25) / across).ravel()
        middles_v = ((rows + 0.5) / down).ravel()
        darker = np.zeros(across * down)
        for _ in range(5):  # a cluster is a dot and some of its neighbours
            du, dv = np.abs(middles_u - random.random()), np.abs(middles_v - random.random())
            away = np.hypot(np.minimum(du, 1 - du), np.minimum(dv, 1 - dv))
            darker[np.argsort(away)[: int(random.integers(2, 5))]] = 1.0
        shade = np.zeros((SIZE, SIZE))
        for u, v, is_darker in zip(middles_u, middles_v, darker):
            at, away = _around(u, v, reach=0.12)
            shade[at] += (11.0 - dark * is_darker) * np.exp(-((away / 0.052) ** 4))
        shade += 2.5 * _mottle(random, 40)
        return np.asarray(colour + shade[..., None] * np.array((1.0, 0.75, 0.5 if dark > 20 else 0.9)))

    return make


def _stripes(random: np.random.Generator, colour: _Shade) -> _Colours:
    """Draw one broad pale stripe."""
    stripe = np.clip((0.17 - np.abs(_U - 0.5)) / 0.03 + 0.5, 0, 1)[..., None]
    return np.asarray((1 - 0.26 * stripe) * colour + 0.26 * stripe * 255 + 2.0 * _mottle(random, 8)[..., None])


_WALLS: dict[str, _Pattern] = {
    "green circuits": _Pattern(_circuits((56, 118, 112), 16), (89, 126, 82)),
    "red tracks": _Pattern(_tracks, (160, 76, 50)),
    "olive tracks": _Pattern(_tracks, (92, 122, 54)),
    "orange discs": _Pattern(_discs, (159, 85, 2)),
    "grey discs": _Pattern(_discs, (79, 77, 82)),
    "slate blocks": _Pattern(_blocks(0.33), (77, 93, 112)),
    "yellow blocks": _Pattern(_blocks(0.5), (190, 166, 52)),
    "yellow tiles": _Pattern(_tiles, (222, 170, 16)),
    "red circuits": _Pattern(_circuits((90, 62, 90), 40), (145, 36, 30)),
    "salmon circuits": _Pattern(_circuits((150, 140, 160), 16), (213, 125, 105)),
    "light green circuits": _Pattern(_circuits((120, 160, 130), 16), (157, 185, 113)),
    "pale green circuits": _Pattern(_circuits((130, 180, 170), 16), (165, 196, 156)),
    "lemon blocks": _Pattern(_blocks(0.12), (229, 199, 76)),
    "amber blocks": _Pattern(_blocks(0.45), (166, 124, 10)),
    "light grey discs": _Pattern(_discs, (146, 144, 149)),
    "pale slate blocks": _Pattern(_blocks(0.3), (123, 139, 156)),
}
_FLOORS: dict[str, _Pattern] = {
    "orange dots": _Pattern(_dots(56.0), (200, 152, 50)),
    "peach cloth": _Pattern(_cloth, (227, 180, 127)),
    "sky cloth": _Pattern(_cloth, (129, 191, 228)),
    "pale spots": _Pattern(_spots, (149, 198, 210)),
    "green lawn": _Pattern(_lawn, (93, 130, 58)),
    "blue lawn": _Pattern(_lawn, (55, 115, 168)),
    "blue dots": _Pattern(_dots(14.0), (5, 94, 181)),
    "sky stripes": _Pattern(_stripes, (102, 188, 227)),
    "yellow stripes": _Pattern(_stripes, (196, 156, 48)),
    "lemon stripes": _Pattern(_stripes, (232, 211, 102)),
    "blue stripes": _Pattern(_stripes, (53, 136, 195)),
    "cream spots": _Pattern(_spots, (233, 217, 122)),
    "lilac cloth": _Pattern(_cloth, (144, 180, 216)),
    "salmon cloth": _Pattern(_cloth, (198, 132, 109)),
    "olive cloth": _Pattern(_cloth, (133, 139, 112)),
    "navy dots": _Pattern(_dots(14.0), (5, 64, 118)),
    "rust dots": _Pattern(_dots(24.0), (198, 116, 46)),
    "teal spots": _Pattern(_spots, (76, 138, 96)),
    "azure lawn": _Pattern(_lawn, (48, 127, 195)),
    "slate lawn": _Pattern(_lawn, (87, 135, 147)),
    "navy lawn": _Pattern(_lawn, (3, 62, 123)),
    "pale cloth": _Pattern(_cloth, (150, 198, 212)),
}

WALLS = tuple(_WALLS)
FLOORS = tuple(_FLOORS)
# All corridors in the real frames use these two; rooms use them among others.
CORRIDOR_WALL, CORRIDOR_FLOOR = "green circuits", "orange dots"


def _texels(pattern: _Pattern, key: int) -> Texels:
    random = np.random.Generator(np.random.Philox(key=key))
    return pyramid(pattern.make(random, np.array(pattern.colour, dtype=np.float64)) / 255)


@cache
def wall(name: str) -> Texels:
    """Return the mipmap of a wall: float32 (texels of all levels, 3), 0 to 1; the first row is the top of the wall."""
    return _texels(_WALLS[name], 200 + WALLS.index(name))


@cache
def floor(name: str) -> Texels:
    """Return the mipmap of a floor: float32 (texels of all levels, 3), 0 to 1."""
    return _texels(_FLOORS[name], 300 + FLOORS.index(name))
