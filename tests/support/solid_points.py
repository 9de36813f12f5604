"""Points on the surfaces of solids, from their kind and sizes: an oracle for the tests of rendering."""

import itertools
import math

import numpy as np

from gqn_data.render import shapes


def points_of(solid):
    """Return points (n, 3) on the surface of a solid, including its corners, in world coordinates."""
    turns = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
    up = np.array((0, 0, 1.0))
    a, b, c = (*solid.sizes, 0, 0)[:3]
    if solid.kind == shapes.BOX:
        local = np.array(list(itertools.product((-a, a), (-b, b), (-c, c))))
    elif solid.kind == shapes.CYLINDER:
        local = np.concatenate([a * circle + b * up, a * circle - b * up])
    elif solid.kind == shapes.CONE:
        local = np.concatenate([a * circle - b * up, [b * up]])
    elif solid.kind == shapes.BAR:
        local = np.concatenate([circle * a + sign * (b + math.sqrt(3) * a * circle[:, 1:2]) * up for sign in (1, -1)])
    elif solid.kind == shapes.CAPSULE:
        local = np.concatenate([a * circle + b * up, a * circle - b * up, [(a + b) * up, -(a + b) * up]])
    else:
        local = np.concatenate([a * circle, [a * up, -a * up]])
    return local @ solid.rotation + solid.centre
