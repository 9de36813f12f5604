"""The page of one browser of `gqn explore`: a scene, and the prediction at the query."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CheckpointError
from gqn_data.viewer.gallery import Gallery
from gqn_data.viewer.latest import Latest
from gqn_data.viewer.page import Camera, Key, ScenePage, plain
from gqn_data.viewer.poses import orientations
from gqn_data.viewer.tiles import Tile, tile_picture
from gqn_model.viewer.controls import Controls, Slider
from gqn_model.viewer.predictor import Predictor, psnr_of
from gqn_model.viewer.recorded import Range, Recorded

if TYPE_CHECKING:
    import viser

WINDOW, SLIDERS = "this window", "sliders"

_TILE, _COLUMNS = 176, 2
_MOST_SAMPLES = 4
_QUERY = (30, 160, 60)
_HIDDEN = np.zeros((1, 1, 3), np.uint8)


class RunPage(ScenePage):
    """A scene in one browser, with a run's prediction at the query.

    Args:
        client: the browser.
        gallery: the scenes, at the network's frame size.
        worker: thread that reads and predicts.
        predictor: the run.
        controls: sliders for the query.
        among: where the cameras of the set are.
        run: name of the run.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        gallery: Gallery,
        worker: Latest[Key],
        *,
        predictor: Predictor,
        controls: Controls,
        among: Range,
        run: str,
    ) -> None:
        self._predictor, self._controls, self._among, self._run = predictor, controls, among, run
        self._recorded: Recorded | None = None
        self._frustum: Any = None
        super().__init__(client, gallery, worker)
        start = self.selection.at_random(predictor.context, gallery.views, seed=0)
        self.choose(start)

        async def moved(_: Any) -> None:
            if self._source.value == WINDOW:
                self.ask()

        client.camera.on_update(moved)

    def ask(self) -> None:
        """Ask for the prediction at the present query, in place of an older request of this browser."""
        self.post("query", self._answer)

    def shown(self, *, is_first: bool) -> None:
        """Ask again for the new scene or context; start at a view outside the context."""
        assert self.views is not None  # noqa: S101  the caller has just set them
        self._recorded = Recorded(self.views.cameras, self.gallery.geometry.yaw_sign)
        if is_first:
            unseen = set(range(len(self.views.cameras))) - set(self.drawn.context if self.drawn else ())
            self.look_from(min(unseen or {0}))
        self.ask()

    def distance_ahead(self, camera: Camera) -> float:
        """Return the distance to the point that the cameras of the set look at, if there is one."""
        if self._controls.focus is None:
            return 0.2 * self.extent
        return float(np.linalg.norm(self._controls.focus - camera[:3]))

    def draw_panel(self) -> None:
        """Add the controls: the prediction above those of the scene."""
        gui = self.client.gui
        with gui.add_folder("Prediction"):
            self._state = gui.add_markdown("")
            self._picture = gui.add_image(tile_picture([Tile("", None)] * 2, _COLUMNS, _TILE), format="png")
            self._words = gui.add_markdown("")
            self._source = gui.add_dropdown("query from", (WINDOW, SLIDERS), initial_value=WINDOW)
            self._sliders = [self._add_slider(one) for one in self._controls.sliders]
            self._samples = gui.add_slider("samples", 0, _MOST_SAMPLES, 1, 1, visible=self._predictor.has_samples)

        async def choose_source(_: Any) -> None:
            for slider in self._sliders:
                slider.visible = self._source.value == SLIDERS
            if self._source.value == SLIDERS:
                self.look_from_outside()
            self.ask()

        async def slide(_: Any) -> None:
            self.ask()

        self._source.on_update(choose_source)
        for slider in (*self._sliders, self._samples):
            slider.on_update(slide)
        super().draw_panel()
        self.describe_run()

    def _add_slider(self, one: Slider) -> Any:
        step = 10 ** math.floor(math.log10((one.high - one.low) / 100))
        low, high = step * math.floor(one.low / step), step * math.ceil(one.high / step)
        start = min(max(step * round(one.value / step), low), high)
        return self.client.gui.add_slider(one.name, float(low), float(high), step, float(start), visible=False)

    def describe_run(self) -> None:
        """Show which checkpoint answers."""
        checkpoint, note = self._predictor.checkpoint, self._predictor.note
        lines = [f"{self._run}: {self._predictor.model_name} after {checkpoint.step} steps", note]
        self._state.content = "\n\n".join(plain(line) for line in lines if line)

    def _query(self) -> Camera:
        if self._source.value == WINDOW:
            return self.camera
        return self._controls.camera([slider.value for slider in self._sliders])

    def _answer(self) -> None:
        """Predict at the query and show it, in the worker's thread."""
        views, recorded, selection = self.views, self._recorded, self.drawn
        if views is None or recorded is None or selection is None:
            return
        query = self._query()
        if not selection.context:
            self._words.content = "no context view: click a camera, or choose some at random"
            self._picture.image = tile_picture([Tile("", None)] * 2, _COLUMNS, _TILE)
            return
        if not np.isfinite(query.astype(np.float32)).all():
            self._words.content = "the camera is not finite: choose a view, and look from there"
            return
        started = time.perf_counter()
        key = selection.split, selection.scene
        samples = min(max(self._samples.value, 0), _MOST_SAMPLES)
        try:
            prediction = self._predictor.predict(key, views, selection.context, query, samples)
        except CheckpointError as error:
            self._words.content = f"**{plain(str(error))}**"
            self._picture.image = tile_picture([Tile("", None)] * 2, _COLUMNS, _TILE)
            return
        taken = time.perf_counter() - started
        near = recorded.nearest(query)
        truth = views.frames[near.view]
        tiles = [
            Tile("prediction", _bytes(prediction.frame)),
            Tile(f"{'true' if near.is_same else 'nearest'} view {near.view}", truth),
        ]
        if prediction.depth is not None:
            tiles.append(Tile("depth of copied colours", depth_picture(prediction.depth)))
        tiles += [Tile(f"sample {number}", _bytes(frame)) for number, frame in enumerate(prediction.samples, 1)]
        lines = []
        if near.is_same:
            seen = ", a context view" if near.view in selection.context else ""
            lines.append(f"PSNR {psnr_of(prediction.frame, truth):.1f} dB against view {near.view}{seen}")
        else:
            lines.append(
                f"nearest view {near.view}: {near.moved:.2f} units, {math.degrees(near.turned):.0f} degrees away"
            )
        names = ("x", "y", "z", "yaw", "pitch")
        lines.append("query: " + ", ".join(f"{name} {value:.2f}" for name, value in zip(names, query)))
        if prediction.depth is not None:
            lines.append(_depth_words(prediction.depth))
        lines.append(f"{1000 * taken:.0f} ms")
        text = "\n\n".join(map(plain, lines))
        if outside := self._among.outside(query):
            text = f"**{plain(outside)}**\n\n{text}"
        self._picture.image = tile_picture(tiles, _COLUMNS, _TILE)
        self._words.content = text
        self._draw_query(query, tiles[0].frame)
        self.client.flush()

    def _draw_query(self, query: Camera, frame: NDArray[np.uint8] | None) -> None:
        """Draw the query's camera with its prediction; the window does not see its own."""
        visible = self._source.value == SLIDERS
        if self._frustum is None:
            if not visible:
                return
            self._frustum = self.client.scene.add_camera_frustum(
                "/query",
                fov=math.radians(self.gallery.geometry.field_of_view),
                aspect=1.0,
                scale=0.09 * self.extent,
                thickness=3.0,
                thickness_units="screen",
                color=_QUERY,
                format="png",
                image=_HIDDEN,
                cast_shadow=False,
                receive_shadow=False,
            )
        with self.client.atomic():
            self._frustum.visible = visible
            if visible:
                self._frustum.position = query[:3]
                self._frustum.wxyz = orientations(query, self.gallery.geometry.yaw_sign)
                self._frustum.image = frame


def depth_picture(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return depths as grey levels, near ones bright: uint8 (H, W, 3). NaN is blue.

    Args:
        depth: (H, W) above 0, NaN where no surface was found.
    """
    known = np.isfinite(depth)
    near = 1 / np.where(known, depth, 1.0)
    low, high = (near[known].min(), near[known].max()) if known.any() else (0.0, 1.0)
    grey = 40 + 215 * (near - low) / max(high - low, 1e-9)
    picture = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, -1)
    picture[~known] = (40, 60, 140)
    return picture


def _depth_words(depth: NDArray[np.float32]) -> str:
    known = depth[np.isfinite(depth)]
    made = f"{100 * (1 - known.size / depth.size):.0f}% of the pixels made, not copied"
    return made if not known.size else f"depth {known.min():.2f} (bright) to {known.max():.2f}; {made} (blue)"


def _bytes(frame: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray((frame * 255).round(), np.uint8)
