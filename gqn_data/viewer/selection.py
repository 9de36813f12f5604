"""What one browser shows: a scene, and the views in its context."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gqn_data.schema.catalog import Split


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A scene and its context views.

    Attributes:
        split: train or test.
        scene: number in the split.
        context: numbers of the context views, in the order in which they were chosen.
    """

    split: Split
    scene: int
    context: tuple[int, ...] = ()

    def toggle(self, view: int) -> Selection:
        """Return the selection with a view taken into the context, or out of it."""
        if view in self.context:
            return replace(self, context=tuple(other for other in self.context if other != view))
        return replace(self, context=(*self.context, view))

    def at_random(self, count: int, views: int, seed: int) -> Selection:
        """Return the selection with `count` of `views` views as context, or all views but one if they are fewer."""
        chosen = np.random.default_rng(seed).permutation(views)[: max(1, min(count, views - 1))]
        return replace(self, context=tuple(int(view) for view in chosen))
