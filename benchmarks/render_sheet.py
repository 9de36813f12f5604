"""Render the picture of the README: some views of two scenes of every set that can be rendered.

python -m benchmarks.render_sheet -o docs/pictures/scene-sets.jpg

Prints the path and the size of the picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gqn_data.render import RENDERERS
from gqn_data.schema.catalog import SCENE_SETS

_SCENES, _VIEWS = 2, 5
_SIZE = 96  # the same size for all sets
_GAP, _BETWEEN, _LABEL = 2, 10, 19
_QUALITY = 86


def row_of(name: str, seed: int) -> NDArray[np.uint8]:
    """Return some views of the first scenes of a set, side by side: uint8 (height, width, 3)."""
    views = SCENE_SETS[name].views
    chosen = np.linspace(0, views - 1, _VIEWS).round().astype(int)
    blocks = []
    for index in range(_SCENES):
        scene = RENDERERS[name](index, seed=seed, split="train", frame_size=_SIZE, views=views, supersample=True)
        frames = np.pad(scene.frames[chosen], ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
        blocks.append(np.pad(np.concatenate(frames, axis=1), ((0, 0), (0, _BETWEEN), (0, 0)), constant_values=255))
    return np.concatenate(blocks, axis=1)[:, : -_BETWEEN - _GAP]


def sheet(seed: int) -> Image.Image:
    """Return a picture with a labelled row per set of the catalogue that can be rendered."""
    names = [name for name in SCENE_SETS if name in RENDERERS]
    rows = [row_of(name, seed) for name in names]
    height = _SIZE + _LABEL + _GAP
    picture = Image.new("RGB", (rows[0].shape[1], height * len(rows)), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13)
    for number, (name, row) in enumerate(zip(names, rows)):
        pen.text((1, number * height + 2), name, fill=(60, 60, 60), font=font)
        picture.paste(Image.fromarray(row), (0, number * height + _LABEL))
    return picture


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("docs/pictures/scene-sets.jpg"), help="picture to write"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet(arguments.seed).save(arguments.output, quality=_QUALITY, optimize=True)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
