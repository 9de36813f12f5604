"""Textures of rooms and mazes: every mipmap level has the same mean."""

import numpy as np
import pytest

from gqn_data.render import maze_textures, textures


@pytest.mark.parametrize(
    ("texture", "finest"),
    [
        (make(name), module.SIZE)
        for module in (textures, maze_textures)
        for make, names in ((module.wall, module.WALLS), (module.floor, module.FLOORS))
        for name in names
    ],
)
def test_every_level_of_a_texture_has_the_same_mean(texture, finest):
    size, base = finest, 0
    assert texture.dtype == np.float32
    assert 0 <= texture.min() <= texture.max() <= 1
    while size:
        level = texture[base : base + size * size]
        assert level.mean(axis=0, dtype=np.float64) == pytest.approx(texture[-1], abs=1e-5)
        base, size = base + size * size, size // 2
    assert base == len(texture)
