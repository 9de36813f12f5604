"""The Shepard-Metzler scene sets: a chain of coloured unit cubes on black, seen from all directions.

Numbers without a source were fitted to real frames (docs/rendering.md).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene
from gqn_data.render.raycast import Lens, Scene, cast_views
from gqn_data.render.shapes import BOX, Solid, pack
from gqn_data.render.streams import scene_stream
from gqn_data.render.surfaces import NO_ROOM, NO_TEXTURES, Light
from gqn_data.render.views import chosen_rows, frames_for
from gqn_data.schema.catalog import Split

CAMERA_RADIUS = 10 / 3  # of the raw cameras: exact in every real camera seen
YAWS, PITCHES = 100, 49  # yaw is a multiple of 2 pi / YAWS, pitch one of pi / 100 from -PITCHES to PITCHES
CAMERA_DISTANCE = 17.5  # in cube edges
FIELD_OF_VIEW = math.radians(22.5)

# The same in every scene: from above and one side, so distant that its rays are almost parallel.
LIGHT = Light(
    position=(1000.0, 1000.0, 1000.0),
    aim=(0.0, 0.0),
    ambient=0.28,
    fill=0.309,
    diffuse=0.52,
    sheen=0.275,
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
    """

    cells: NDArray[np.int64]
    colours: NDArray[np.float64]

    @property
    def solids(self) -> list[Solid]:
        """The cubes, with their bounding box centred at the origin."""
        centres = self.cells - (self.cells.min(axis=0) + self.cells.max(axis=0)) / 2
        return [
            Solid(
                kind=BOX,
                centre=(float(x), float(y), float(z)),
                sizes=(0.5, 0.5, 0.5),
                colour=(float(red), float(green), float(blue)),
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


def sample_chain(random: np.random.Generator, cubes: int) -> CubeChain:
    """Sample an object of `cubes` cubes."""
    cells = self_avoiding_walk(random, cubes)
    colours = np.array([colorsys.hsv_to_rgb(hue, 1.0, 1.0) for hue in random.random(cubes)])
    return CubeChain(cells=cells, colours=colours)


def sphere_cameras(random: np.random.Generator, views: int) -> NDArray[np.float64]:
    """Sample raw cameras (views, 5) that look at the origin from all around.

    Yaw and pitch are uniform over their grids. Yaw grows clockwise seen from above: a camera looks along
    (cos yaw cos pitch, -sin yaw cos pitch, sin pitch).
    """
    draws = random.random((views, 2))
    yaw = np.floor(draws[:, 0] * YAWS) * (2 * math.pi / YAWS)
    pitch = (np.floor(draws[:, 1] * (2 * PITCHES + 1)) - PITCHES) * (math.pi / 100)
    forward = np.stack([np.cos(yaw) * np.cos(pitch), -np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=1)
    return np.column_stack([-CAMERA_RADIUS * forward, yaw, pitch])


def sphere_to_world(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert raw cameras (views, 5) to those of the ray caster: positions in cube edges, yaw counter-clockwise."""
    edges = CAMERA_DISTANCE / CAMERA_RADIUS
    return raw * (edges, edges, edges, -1.0, 1.0)


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
    chain: CubeChain,
    cameras: NDArray[np.float64],
    frame_size: int,
    supersample: bool,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Render frames uint8 (views, frame_size, frame_size, 3) of an object from cameras (views, 5) in cube edges.

    They are rendered into `out` if it is given.
    """
    frames = frames_for(cameras, frame_size, out)
    kinds, rows = pack(chain.solids)
    lens = Lens(tangent=math.tan(FIELD_OF_VIEW / 2), samples=2 if supersample else 1)
    cast_views(Scene(kinds, rows, LIGHT, NO_ROOM, NO_TEXTURES), cameras, lens, frames)
    return frames


def render_chain_scene(
    cubes: int,
    index: int,
    *,
    seed: int,
    split: Split,
    frame_size: int,
    views: int,
    supersample: bool,
    chosen: Sequence[int] | None = None,
    out: NDArray[np.uint8] | None = None,
) -> RenderedScene:
    """Render scene `index` of the set with `cubes` cubes per object; see `Renderer`."""
    chain, raw = sample_scene(cubes, index, seed=seed, split=split, views=views)
    frames = render_chain(chain, sphere_to_world(chosen_rows(raw, chosen)), frame_size, supersample, out)
    return RenderedScene(frames, raw.astype(np.float32))
