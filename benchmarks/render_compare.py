"""Compare rendered frames with real ones: a contact sheet, and image statistics.

Run with: python -m benchmarks.render --compare FOLDER -o sheet.png

Reference pictures are read in place; only the sheet is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gqn_data.render import RENDERERS
from gqn_data.schema import jpeg

Frames = NDArray[np.uint8]  # (scenes, views, 64, 64, 3)

_SIZE = 64
_QUALITY = 95
_EDGE = 24  # brightness step between neighbouring pixels that counts as an edge


@dataclass(frozen=True)
class Reference:
    """Real frames of one set: file, set, and a function that cuts the picture into scenes and views."""

    file: str
    scene_set: str
    cut: Callable[[Frames], Frames]


def _tiles(picture: Frames, lefts: list[float], tops: list[float], side: float) -> Frames:
    """Cut square tiles from a picture, and resize them to 64 pixels per side."""
    image = Image.fromarray(picture)
    pieces = [
        [
            np.asarray(image.resize((_SIZE, _SIZE), Image.Resampling.BOX, (left, top, left + side, top + side)))
            for left in lefts
        ]
        for top in tops
    ]
    return np.array(pieces)


def _rooms(picture: Frames) -> Frames:
    return _tiles(picture, [192 * k for k in range(6)], [192 * k for k in range(8)], 192)


def _thirty_six(picture: Frames) -> Frames:
    return _tiles(picture, [2 + 66 * k for k in range(6)], [2 + 66 * k for k in range(6)], 64)


def _fifteen(picture: Frames) -> Frames:
    lefts: list[float] = [27, 102, 177, 253, 328, 403, 478, 554, 629, 704, 779, 855, 930, 1005, 1080]
    return _tiles(picture, lefts, [23], 63)


def _panel(left: float) -> Callable[[Frames], Frames]:
    # These frames were enlarged 1.5 times in a figure: usable for colours and sizes, not for edges.
    lefts = [left + offset for offset in (2.5, 101, 200.5, 301)]
    return lambda picture: _tiles(picture, lefts, [49.5, 148.5, 248, 347.5, 447], 96)


_PANELS = "rrc_sm7_rfc_rro_with_one_peers_predictions.png"
REFERENCES = (
    Reference("rooms_ring_camera.png", "rooms_ring_camera", _rooms),
    Reference(_PANELS, "rooms_ring_camera", _panel(0)),
    # "RFC": 128 px, resized to 64 like ours. "RRO", not shown, is rooms-random-objects of E-GQN, not DeepMind's.
    Reference(_PANELS, "rooms_free_camera_with_object_rotations", _panel(1005)),
    Reference("shepard_metzler_5_parts_36_frames.png", "shepard_metzler_5_parts", _thirty_six),
    Reference("shepard_metzler_5_parts_15_views.png", "shepard_metzler_5_parts", _fifteen),
    Reference(_PANELS, "shepard_metzler_7_parts", _panel(502)),
)


@dataclass(frozen=True)
class Figures:
    """Image statistics, as means over frames."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    jpeg_bytes: float
    edges: float

    @staticmethod
    def of(frames: Frames) -> Figures:
        """Return the statistics of frames (scenes, views, height, width, 3)."""
        flat = frames.reshape(-1, *frames.shape[2:])
        grey = flat.mean(axis=-1)
        steps = np.abs(np.diff(grey, axis=1))[:, :, 1:] + np.abs(np.diff(grey, axis=2))[:, 1:]
        return Figures(
            mean=tuple(flat.mean(axis=(0, 1, 2)).tolist()),
            deviation=tuple(flat.std(axis=(0, 1, 2)).tolist()),
            jpeg_bytes=float(np.mean([len(jpeg.encode(frame, _QUALITY)) for frame in flat])),
            edges=float((steps > _EDGE).mean()),
        )

    def row(self, name: str, count: int) -> str:
        """Return a row of the table."""
        mean = " ".join(f"{value:5.0f}" for value in self.mean)
        deviation = " ".join(f"{value:4.0f}" for value in self.deviation)
        return f"{name:34} {count:6d} | {mean} | {deviation} | {self.jpeg_bytes:6.0f} | {100 * self.edges:5.1f} %"


HEADING = f"{'':34} frames | mean R  G  B       | dev R G B      | JPEG B | edges"


def brightness(scene_set: str, frames: Frames) -> str:
    """Return the brightness of parts of the picture, by the brightest channel; the lights were fitted to it."""
    bright = frames.max(axis=-1)
    if scene_set.startswith("rooms"):
        parts = {"wall": bright[:, :, 22:32], "floor": bright[:, :, 46:]}
        marks = {name: np.percentile(part, [2, 10, 25, 50, 75, 90, 98]) for name, part in parts.items()}
        return "; ".join(f"{name} {' '.join(f'{mark:.0f}' for mark in row)}" for name, row in marks.items())
    drawn = bright[bright > 40]
    over = " ".join(f"{(drawn > level).mean():.2f} over {level}," for level in (160, 245))
    return f"covers {drawn.size / bright.size:.3f}; of that {over[:-1]}"


def ours(scene_set: str, scenes: int, views: int, first: int = 0) -> Frames:
    """Render frames (scenes, views, 64, 64, 3) of seed 0."""
    render = RENDERERS[scene_set]
    return np.stack(
        [
            render(first + k, seed=0, split="train", frame_size=_SIZE, views=views, supersample=True).frames
            for k in range(scenes)
        ]
    )


def _grid(frames: Frames, gap: int = 2) -> Frames:
    scenes, views = frames.shape[:2]
    step = _SIZE + gap
    sheet = np.full((scenes * step, views * step, 3), 90, dtype=np.uint8)
    for row in range(scenes):
        for column in range(views):
            top, left = row * step, column * step
            sheet[top : top + _SIZE, left : left + _SIZE] = frames[row, column]
    return sheet


def _beside(left: Frames, right: Frames) -> Frames:
    bar = np.full((left.shape[0], 12, 3), (255, 0, 0), dtype=np.uint8)
    return np.concatenate([left, bar, right], axis=1)


def compare(folder: Path, sheet: Path, scenes: int = 120, magnify: int = 2) -> None:
    """Write the sheet (real frames left, ours right) and print the table.

    Args:
        folder: folder of the reference pictures.
        sheet: PNG file to write.
        scenes: number of our scenes in the statistics; the sheet shows the same number of scenes for both.
        magnify: integer scale of the sheet.
    """
    print(HEADING)
    blocks, lights = [], []
    for reference in REFERENCES:
        picture = np.asarray(Image.open(folder / reference.file).convert("RGB"))
        real = reference.cut(picture)
        made = ours(reference.scene_set, scenes, real.shape[1])
        name = reference.scene_set
        print(Figures.of(real).row(f"real {name}", real.shape[0] * real.shape[1]))
        print(Figures.of(made).row(f"ours {name}", made.shape[0] * made.shape[1]))
        lights += [f"{side} {name}: {brightness(name, some)}" for side, some in (("real", real), ("ours", made))]
        shown = made[: real.shape[0]]
        if reference.cut is _thirty_six:  # one view per scene of 36 scenes, as in the real picture
            shown = made[:36, 0].reshape(6, 6, _SIZE, _SIZE, 3)
        pair = (_grid(real), _grid(shown))
        blocks.append(_beside(*pair) if real.shape[1] < 10 else np.concatenate(pair))
    print("brightest channel, percentiles 2 10 25 50 75 90 98, or fractions of the covered pixels", *lights, sep="\n")
    width = max(block.shape[1] for block in blocks)
    padded = [np.pad(block, ((0, 8), (0, width - block.shape[1]), (0, 0))) for block in blocks]
    picture = np.concatenate(padded)
    size = (picture.shape[1] * magnify, picture.shape[0] * magnify)
    Image.fromarray(picture).resize(size, Image.Resampling.NEAREST).save(sheet)
    print(f"wrote {sheet}")
