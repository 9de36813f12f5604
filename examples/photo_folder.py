"""Write scenes as folders of photos with cameras, to try `gqn-data import` without a camera.

    python examples/photo_folder.py render:rooms_free_camera,frame_size=128 photos --scenes 200
    gqn-data import photos --size 32
    gqn train --shards data/zarr/photos --preset sweep_tiny

Each scene becomes a folder of PNG files with nerfstudio's `transforms.json`. A part of every other photo is cut off, so
that they differ in size and principal point like those of several cameras.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import gqn_data
from gqn_data.errors import GQNError
from gqn_data.schema.geometry import Geometry

# Of the width, cut off at the right of every other photo.
_CUT = 0.1


def camera_to_world(camera: NDArray[np.float32], yaw_sign: int) -> NDArray[np.float64]:
    """Return nerfstudio's matrix (4, 4) of a camera (5,): columns right, up, back, and its position."""
    x, y, z, yaw, pitch = (float(number) for number in camera)
    yaw *= yaw_sign
    forward = np.array((math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)))
    right = np.array((math.sin(yaw), -math.cos(yaw), 0.0))
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([right, np.cross(right, forward), -forward, (x, y, z)])
    return matrix


def write_scene(scene: gqn_data.Scene, geometry: Geometry, folder: Path) -> None:
    """Write the photos of a scene, and `transforms.json` last."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for view, (pixels, camera) in enumerate(zip(scene.frames, scene.cameras)):
        height, width = pixels.shape[:2]
        focal = width / 2 / math.tan(math.radians(geometry.field_of_view) / 2)
        kept = width - int(_CUT * width) * (view % 2)
        Image.fromarray(pixels[:, :kept]).save(folder / "images" / f"{view:03}.png")
        frames.append(
            {
                "file_path": f"images/{view:03}.png",
                "transform_matrix": camera_to_world(camera, geometry.yaw_sign).tolist(),
                "w": kept,
                "h": height,
                "fl_x": focal,
                "cx": width / 2,
                "cy": height / 2,
            }
        )
    (folder / "transforms.json").write_text(json.dumps({"camera_model": "OPENCV", "frames": frames}, indent=1))


@click.command()
@click.argument("dataset")
@click.argument("photos", type=click.Path(path_type=Path))
@click.option("--scenes", type=click.IntRange(1), default=100, show_default=True, help="Number of scenes.")
def main(dataset: str, photos: Path, scenes: int) -> None:
    """Write scenes of DATASET, a folder or `render:SET`, below the folder PHOTOS."""
    try:
        opened = gqn_data.open(dataset)
        geometry = opened.manifest.geometry
        if geometry is None:
            raise click.ClickException(f"{dataset}: states no geometry, expected the field of view of its frames")
        for number in range(scenes):
            write_scene(opened[number], geometry, photos / f"scene-{number:04}")
    except (GQNError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{photos}: {scenes} scenes of {opened.layout.views} photos")


if __name__ == "__main__":
    main()
