"""The Shepard-Metzler sets: a chain of coloured unit cubes in the dark, seen from all around.

Where a number has no source beside it, it was fitted to real frames (docs/rendering.md). Imports the rest of
the package.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene
from gqn_data.render.raycast import Lens, Scene, cast_views
from gqn_data.render.shapes import BOX, Solid, pack
from gqn_data.render.streams import scene_stream
from gqn_data.render.surfaces import NO_ROOM, NO_TEXTURES, Light
from gqn_data.schema.catalog import Split

CAMERA_DISTANCE = 7.5  # edges of a cube
FIELD_OF_VIEW = math.radians(50)

# The same in every scene: from above and one side, so far away that its rays are as good as parallel.
LIGHT = Light(
    at=(60.0, 30.0, 75.0),
    aim=(0.0, 0.0),
    ambient=0.21,
    fill=0.36,
    diffuse=1.05,
    sheen=0.24,
    floor_ambient=0.0,
    floor_diffuse=0.0,
)

_STEPS = np.concatenate([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])


@dataclass(frozen=True, kw_only=True)
class CubeChain:
    """One object.

    Attributes:
        cells: int64 (cubes, 3), the lattice cells in the order of the walk; neighbours share a face.
        colours: float64 (cubes, 3), 0 to 1.
        turn: float64 (3, 3), a rotation; its rows are the lattice's axes in world coordinates.
    """

    cells: NDArray[np.int64]
    colours: NDArray[np.float64]
    turn: NDArray[np.float64]

    @property
    def solids(self) -> list[Solid]:
        """The cubes, the mean of their centres at the origin."""
        centres = (self.cells - self.cells.mean(axis=0)) @ self.turn
        return [
            Solid(
                kind=BOX,
                centre=(float(x), float(y), float(z)),
                sizes=(0.5, 0.5, 0.5),
                colour=(float(red), float(green), float(blue)),
                turn=self.turn,
            )
            for (x, y, z), (red, green, blue) in zip(centres, self.colours)
        ]


def self_avoiding_walk(random: np.random.Generator, cubes: int) -> NDArray[np.int64]:
    """The cells (cubes, 3) of a walk on the cubic lattice that never comes back to a cell.

    All walks are equally likely: one that runs into itself is thrown away as a whole (four out of ten of seven).
    """
    while True:
        steps = _STEPS[random.integers(len(_STEPS), size=cubes - 1)]
        cells = np.concatenate([np.zeros((1, 3), dtype=np.int64), np.cumsum(steps, axis=0)])
        if len(np.unique(cells, axis=0)) == cubes:
            return cells


def random_turn(random: np.random.Generator) -> NDArray[np.float64]:
    """A rotation (3, 3), uniform over all of them: a unit quaternion from four normal numbers."""
    w, x, y, z = (q := random.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def sample_chain(random: np.random.Generator, cubes: int) -> CubeChain:
    """A random object of that many cubes."""
    cells = self_avoiding_walk(random, cubes)
    colours = np.array([colorsys.hsv_to_rgb(hue, 1.0, 1.0) for hue in random.random(cubes)])
    return CubeChain(cells=cells, colours=colours, turn=random_turn(random))


def sphere_cameras(random: np.random.Generator, views: int) -> NDArray[np.float64]:
    """The raw cameras (views, 5) on the unit sphere, uniform over it, looking at the middle."""
    draws = random.random((views, 2))
    z, bearing = 2 * draws[:, 0] - 1, math.pi * (2 * draws[:, 1] - 1)
    across = np.sqrt(1 - z * z)
    x, y = across * np.cos(bearing), across * np.sin(bearing)
    return np.stack([x, y, z, np.arctan2(-y, -x), -np.arcsin(z)], axis=1)


def sphere_to_world(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same cameras (views, 5), their positions in edges of a cube."""
    return raw * (CAMERA_DISTANCE, CAMERA_DISTANCE, CAMERA_DISTANCE, 1.0, 1.0)


def scene_set_name(cubes: int) -> str:
    """DeepMind's name of the set of that many cubes."""
    return f"shepard_metzler_{cubes}_parts"


def sample_scene(
    cubes: int, index: int, *, seed: int, split: Split, views: int
) -> tuple[CubeChain, NDArray[np.float64]]:
    """Scene `index` and its raw cameras (views, 5); more views begin with the same ones."""
    random = scene_stream(seed, scene_set_name(cubes), split, index)
    return sample_chain(random, cubes), sphere_cameras(random, views)


def render_chain(
    chain: CubeChain, cameras: NDArray[np.float64], frame_size: int, supersample: bool
) -> NDArray[np.uint8]:
    """The frames uint8 (views, frame_size, frame_size, 3) of an object, seen by cameras (views, 5) in cube edges."""
    frames = np.empty((len(cameras), frame_size, frame_size, 3), dtype=np.uint8)
    kinds, rows = pack(chain.solids)
    lens = Lens(tangent=math.tan(FIELD_OF_VIEW / 2), samples=2 if supersample else 1)
    cast_views(Scene(kinds, rows, LIGHT, NO_ROOM, NO_TEXTURES), cameras, lens, frames)
    return frames


def render_chain_scene(
    cubes: int, index: int, *, seed: int, split: Split, frame_size: int, views: int, supersample: bool
) -> RenderedScene:
    """Scene `index` of the set of that many cubes, as `gqn_data.render.Renderer` says."""
    chain, raw = sample_scene(cubes, index, seed=seed, split=split, views=views)
    frames = render_chain(chain, sphere_to_world(raw), frame_size, supersample)
    return RenderedScene(frames, raw.astype(np.float32))
