"""The Shepard-Metzler scene sets: a chain of coloured unit cubes on black, seen from all directions.

Numbers without a source were fitted to real frames (docs/rendering.md).
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

CAMERA_DISTANCE = 7.5  # in cube edges
FIELD_OF_VIEW = math.radians(50)

# The same in every scene: from above and one side, so distant that its rays are almost parallel.
LIGHT = Light(
    position=(60.0, 30.0, 75.0),
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
    """One object: a chain of cubes.

    Attributes:
        cells: int64 (cubes, 3), lattice cells in the order of the walk; successive cubes share a face.
        colours: float64 (cubes, 3), RGB, 0 to 1.
        rotation: float64 (3, 3); its rows are the lattice's axes in world coordinates.
    """

    cells: NDArray[np.int64]
    colours: NDArray[np.float64]
    rotation: NDArray[np.float64]

    @property
    def solids(self) -> list[Solid]:
        """The cubes, with the mean of their centres at the origin."""
        centres = (self.cells - self.cells.mean(axis=0)) @ self.rotation
        return [
            Solid(
                kind=BOX,
                centre=(float(x), float(y), float(z)),
                sizes=(0.5, 0.5, 0.5),
                colour=(float(red), float(green), float(blue)),
                rotation=self.rotation,
            )
            for (x, y, z), (red, green, blue) in zip(centres, self.colours)
        ]


def self_avoiding_walk(random: np.random.Generator, cubes: int) -> NDArray[np.int64]:
    """Sample the cells (cubes, 3) of a self-avoiding walk on the cubic lattice.

    All walks are equally likely, because a walk that meets itself is rejected as a whole (four in ten for 7 cubes).
    """
    while True:
        steps = _STEPS[random.integers(len(_STEPS), size=cubes - 1)]
        cells = np.concatenate([np.zeros((1, 3), dtype=np.int64), np.cumsum(steps, axis=0)])
        if len(np.unique(cells, axis=0)) == cubes:
            return cells


def random_rotation(random: np.random.Generator) -> NDArray[np.float64]:
    """Sample a uniform rotation (3, 3), from a unit quaternion of four normal numbers."""
    w, x, y, z = (q := random.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def sample_chain(random: np.random.Generator, cubes: int) -> CubeChain:
    """Sample an object of `cubes` cubes."""
    cells = self_avoiding_walk(random, cubes)
    colours = np.array([colorsys.hsv_to_rgb(hue, 1.0, 1.0) for hue in random.random(cubes)])
    return CubeChain(cells=cells, colours=colours, rotation=random_rotation(random))


def sphere_cameras(random: np.random.Generator, views: int) -> NDArray[np.float64]:
    """Sample raw cameras (views, 5), uniform over the unit sphere, looking at its centre."""
    draws = random.random((views, 2))
    z, bearing = 2 * draws[:, 0] - 1, math.pi * (2 * draws[:, 1] - 1)
    across = np.sqrt(1 - z * z)
    x, y = across * np.cos(bearing), across * np.sin(bearing)
    return np.stack([x, y, z, np.arctan2(-y, -x), -np.arcsin(z)], axis=1)


def sphere_to_world(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert raw cameras (views, 5) to positions in cube edges."""
    return raw * (CAMERA_DISTANCE, CAMERA_DISTANCE, CAMERA_DISTANCE, 1.0, 1.0)


def scene_set_name(cubes: int) -> str:
    """Return DeepMind's name of the set with `cubes` cubes per object."""
    return f"shepard_metzler_{cubes}_parts"


def sample_scene(
    cubes: int, index: int, *, seed: int, split: Split, views: int
) -> tuple[CubeChain, NDArray[np.float64]]:
    """Sample scene `index` and its raw cameras (views, 5); a larger `views` appends to them."""
    random = scene_stream(seed, scene_set_name(cubes), split, index)
    return sample_chain(random, cubes), sphere_cameras(random, views)


def render_chain(
    chain: CubeChain, cameras: NDArray[np.float64], frame_size: int, supersample: bool
) -> NDArray[np.uint8]:
    """Render frames uint8 (views, frame_size, frame_size, 3) of an object from cameras (views, 5) in cube edges."""
    frames = np.empty((len(cameras), frame_size, frame_size, 3), dtype=np.uint8)
    kinds, rows = pack(chain.solids)
    lens = Lens(tangent=math.tan(FIELD_OF_VIEW / 2), samples=2 if supersample else 1)
    cast_views(Scene(kinds, rows, LIGHT, NO_ROOM, NO_TEXTURES), cameras, lens, frames)
    return frames


def render_chain_scene(
    cubes: int, index: int, *, seed: int, split: Split, frame_size: int, views: int, supersample: bool
) -> RenderedScene:
    """Render scene `index` of the set with `cubes` cubes per object; see `Renderer`."""
    chain, raw = sample_scene(cubes, index, seed=seed, split=split, views=views)
    frames = render_chain(chain, sphere_to_world(raw), frame_size, supersample)
    return RenderedScene(frames, raw.astype(np.float32))
