"""Pictures of predictions: a grid with one column per scene, or a figure for a column of text with a row per scene.

Functions take tensors of frames and return Pillow images or matplotlib figures.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gqn_model.model.contract import Network
from gqn_model.model.distributions import psnr
from gqn_model.model.inputs import Context, Inputs, select_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGIN = 6
_TEXT = 14
_FRAME_SIZE = 128  # small frames are enlarged to about this size, by an integer factor

# Of the figure: inches of a column in two-column papers, points of its text, and space before the truth in frames.
_COLUMN, _POINTS, _SPACE = 3.3, 6, 0.3


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
        found = _predictions(model, context, query, averaged=averaged, samples=samples, seed=seed)
        for number, (caption, frames) in enumerate(found):
            errors = ((frames.clamp(0, 1) - target) ** 2).mean((1, 2, 3))
            notes = [f"{value:.1f} dB" for value in psnr(errors).tolist()]
            lines = f"{name}\n{caption.replace(chr(10), ' ')}" if name else caption
            rows.append(Row(lines, frames, notes=notes, gap=bool(name) and not number))
    return grid(title, rows)


@torch.no_grad()
def prediction_figure(
    models: Mapping[str, Network], inputs: Inputs, *, rows: int = 8, averaged: int = 16, seed: int = 0
) -> Figure:
    """Draw a figure as wide as a column of text: per scene the context, the ground truth and a prediction per model.

    Args:
        models: networks by the name above their column.
        inputs: a batch on the networks' device; its first scenes are shown.
        rows: number of scenes.
        averaged: prior samples averaged into the prediction.
        seed: seed of the noise; torch's global generator is not used.
    """
    from matplotlib.figure import Figure

    context, query, target = select_rows(inputs, slice(rows))
    found = [
        _predictions(model, context, query, averaged=averaged, samples=0, seed=seed)[0][1] for model in models.values()
    ]
    slots = context.mask.shape[1]
    cell = _COLUMN / (slots + _SPACE + 1 + len(found))
    lines = [textwrap.wrap(re.sub("([_,-])", r"\1 ", name), 9) for name in models]
    head = max(2, *map(len, lines)) * _POINTS * 1.2 / 72
    note = _POINTS * 1.3 / 72
    tall = head + len(target) * (cell + note)
    figure = Figure(figsize=(_COLUMN, tall), dpi=300)

    def show(row: int, left: float, frame: Tensor) -> None:
        bottom = tall - head - row * (cell + note) - cell
        axes = figure.add_axes((left / _COLUMN, bottom / tall, 0.95 * cell / _COLUMN, 0.95 * cell / tall))
        axes.imshow(frame.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="none")
        axes.set_axis_off()

    def write(left: float, top: float, text: str) -> None:
        figure.text(left / _COLUMN, top / tall, text, fontsize=_POINTS, va="top", parse_math=False)

    truth = (slots + _SPACE) * cell
    write(0, tall, "context")
    write(truth, tall, "truth")
    for number, words in enumerate(lines):
        write(truth + (1 + number) * cell, tall, "\n".join(line.replace(" ", "") for line in words))
    for row in range(len(target)):
        for slot in range(slots):
            if context.mask[row, slot]:
                show(row, slot * cell, context.frames[row, slot])
        show(row, truth, target[row])
        for number, frames in enumerate(found):
            left = truth + (1 + number) * cell
            show(row, left, frames[row])
            error = ((frames[row].clamp(0, 1) - target[row]) ** 2).mean()
            write(left, tall - head - row * (cell + note) - cell, f"{psnr(error).item():.1f} dB")
    return figure


def _predictions(
    model: Network, context: Context, query: Tensor, *, averaged: int, samples: int, seed: int
) -> list[tuple[str, Tensor]]:
    """Return captions and frames (rows, 3, H, W): the prediction, then samples of a model with a distribution."""
    if not model.draws_samples:
        return [("prediction", model.predict_mean(context, query))]
    drawn = model.sample(context, query, max(averaged, samples), seed)
    found = [("prediction\n(prior mean)", drawn[:averaged].mean(0))]
    return found + [(f"sample {number + 1}", drawn[number]) for number in range(samples)]
