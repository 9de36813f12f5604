"""Choice of the views of a scene that are rendered, and the array that their frames are rendered into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def chosen_rows(cameras: NDArray[Any], chosen: Sequence[int] | None) -> NDArray[Any]:
    """Return the rows of the chosen views, in their order; all rows for None."""
    return cameras if chosen is None else cameras[list(chosen)]


def frames_for(cameras: NDArray[np.float64], frame_size: int, out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return `out`, or a new array for None, to render the frames of the cameras into.

    Raises:
        ValueError: `out` is not a C-contiguous uint8 array (cameras, frame_size, frame_size, 3). Compiled code would
            write outside of it.
    """
    shape = (len(cameras), frame_size, frame_size, 3)
    if out is None:
        return np.empty(shape, dtype=np.uint8)
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out: {out.dtype} of shape {out.shape}, expected contiguous uint8 of shape {shape}")
    return out
