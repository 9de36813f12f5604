"""Pictures of predictions: a grid with one column per scene and captions at the left.

Functions take tensors of frames and return Pillow images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gqn_model.model.contract import LatentNetwork, Network
from gqn_model.model.distributions import psnr
from gqn_model.model.inputs import Inputs, select_rows

_MARGIN = 6
_TEXT = 14
_FRAME_SIZE = 128  # small frames are enlarged to about this size, by an integer factor


class Row(NamedTuple):
    """One row of the grid.

    Attributes:
        caption: text at the left; may have a second line.
        frames: (columns, 3, H, W) in [0, 1].
        shown: bool (columns,), False for a grey box instead of the frame; None shows all.
        notes: text below each frame, or None.
        gap: leave space above the row.
    """

    caption: str
    frames: Tensor
    shown: Sequence[bool] | None = None
    notes: Sequence[str] | None = None
    gap: bool = False


def grid(title: str, rows: Sequence[Row]) -> Image.Image:
    """Draw the rows as one picture with a title."""
    columns, _, height, width = rows[0].frames.shape
    scale = max(1, round(_FRAME_SIZE / height))
    side_y, side_x = height * scale, width * scale
    font = ImageFont.load_default(_TEXT)
    left = _MARGIN * 2 + max(int(font.getlength(line)) for row in rows for line in row.caption.split("\n"))
    note = _TEXT + 4
    tall = sum(side_y + _MARGIN + note * bool(row.notes) + 3 * _MARGIN * row.gap for row in rows)
    wide = max(left + columns * (side_x + _MARGIN), int(font.getlength(title)) + 2 * _MARGIN)
    image = Image.new("RGB", (wide + _MARGIN, tall + 2 * _TEXT + _MARGIN), "white")
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, _MARGIN), title, "black", font)
    top = 2 * _TEXT
    for row in rows:
        top += 3 * _MARGIN * row.gap
        draw.multiline_text((_MARGIN, top + side_y // 2 - _TEXT), row.caption, "black", font)
        pixels = (row.frames.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
        for column in range(columns):
            x = left + column * (side_x + _MARGIN)
            if row.shown is None or row.shown[column]:
                frame = Image.fromarray(np.ascontiguousarray(pixels[column].permute(1, 2, 0).numpy()))
                image.paste(frame.resize((side_x, side_y), Image.Resampling.NEAREST), (x, top))
            else:
                draw.rectangle((x, top, x + side_x - 1, top + side_y - 1), "#eeeeee")
            if row.notes:
                draw.text((x, top + side_y + 1), row.notes[column], "black", font)
        top += side_y + _MARGIN + note * bool(row.notes)
    return image


@torch.no_grad()
def prediction_picture(
    models: Mapping[str, Network],
    inputs: Inputs,
    title: str,
    *,
    columns: int = 8,
    averaged: int = 16,
    samples: int = 2,
    seed: int = 0,
) -> Image.Image:
    """Draw context views, the ground truth and predictions; of a model with a distribution its mean and samples.

    Args:
        models: networks by the name that their captions begin with; an empty name is left out.
        inputs: a batch on the networks' device; its first scenes are shown.
        title: text above the picture.
        columns: number of scenes.
        averaged: prior samples averaged into the prediction.
        samples: prior samples shown.
        seed: seed of the noise; torch's global generator is not used.
    """
    context, query, target = select_rows(inputs, slice(columns))
    rows = [
        Row(f"context {slot + 1}", context.frames[:, slot], context.mask[:, slot].tolist())
        for slot in range(context.mask.shape[1])
        if bool(context.mask[:, slot].any())
    ]
    rows.append(Row("ground\ntruth", target, gap=True))
    for name, model in models.items():
        found: list[tuple[str, Tensor]]
        if isinstance(model, LatentNetwork):
            drawn = model.sample(context, query, max(averaged, samples), seed)
            found = [("prediction\n(prior mean)", drawn[:averaged].mean(0))]
            found += [(f"sample {number + 1}", drawn[number]) for number in range(samples)]
        else:
            found = [("prediction", model.predict_mean(context, query))]
        for number, (caption, frames) in enumerate(found):
            errors = ((frames.clamp(0, 1) - target) ** 2).mean((1, 2, 3))
            notes = [f"{value:.1f} dB" for value in psnr(errors).tolist()]
            lines = f"{name}\n{caption.replace(chr(10), ' ')}" if name else caption
            rows.append(Row(lines, frames, notes=notes, gap=bool(name) and not number))
    return grid(title, rows)
