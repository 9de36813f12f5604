"""The page of one browser: the cameras of a scene as frustums with their frames, and the choice of scene and context.

Callbacks of viser run on its event loop and only note what was asked; scenes are read in the thread of `Latest`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import GQNError
from gqn_data.viewer.gallery import Gallery, Views
from gqn_data.viewer.latest import Latest
from gqn_data.viewer.poses import camera_at, directions, orientations
from gqn_data.viewer.selection import Selection
from gqn_data.viewer.server import Server
from gqn_data.viewer.tiles import Tile, tile_picture

if TYPE_CHECKING:
    import viser

Camera = NDArray[np.float64]
Key = tuple[int, str]  # a browser, and what it asks for

# Frustums with frames of one scene; a maze has 300 views.
_MOST_FRUSTUMS = 100
_CONTEXT_AT_FIRST = 5
_STRIP, _COLUMNS = 96, 4  # the strip of context frames in the panel

_LENS_OUTSIDE = 50.0  # degrees

_CONTEXT, _OTHER = (235, 120, 20), (110, 110, 110)


class ScenePage:
    """A scene in one browser.

    Args:
        client: the browser.
        gallery: the scenes.
        worker: thread that reads them.

    Attributes:
        selection: what the browser asks for.
        drawn: what it shows, set in the worker's thread.
        views: the views of `drawn`.
    """

    def __init__(self, client: viser.ClientHandle, gallery: Gallery, worker: Latest[Key]) -> None:
        self.client = client
        self.gallery = gallery
        self.selection = Selection(split=next(iter(gallery.datasets)), scene=0)
        self.views: Views | None = None
        self._worker = worker
        self._frustums: dict[int, Any] = {}
        self.drawn: Selection | None = None
        self._scale = 0.0
        self._frames_shown = self._frames_drawn = True
        self.draw_panel()
        client.scene.configure_default_lights(cast_shadow=False)
        self.choose(self.selection)

    def post(self, what: str, work: Callable[[], None]) -> None:
        """Ask for work of this browser, in place of pending work of the same name."""
        self._worker.post((self.client.client_id, what), work)

    def show_error(self, text: str) -> None:
        """Show a line about something that failed; an empty text removes it."""
        self._error.content = f"**{plain(text)}**" if text else ""
        self._error.visible = bool(text)

    def shown(self, *, is_first: bool) -> None:
        """Act on a new scene or context, in the worker's thread.

        Args:
            is_first: whether it is the first one of this page.
        """
        if is_first:
            self.look_from_outside()

    def look_from(self, view: int) -> None:
        """Move the browser's camera to the camera of a view, with its lens."""
        if self.views is None or not 0 <= view < len(self.views.cameras):
            return
        camera = self.views.cameras[view].astype(np.float64)
        ahead = directions(camera, self.gallery.geometry.yaw_sign)
        self.move(camera[:3], camera[:3] + self.distance_ahead(camera) * ahead, self.gallery.geometry.field_of_view)

    def distance_ahead(self, camera: Camera) -> float:  # noqa: ARG002  for pages that know it
        """Return how far ahead of a camera (5,) the point lies that dragging the mouse turns about."""
        return 0.5 * self.extent

    def look_from_outside(self) -> None:
        """Move the browser's camera so that it shows all cameras of the scene from above."""
        if self.views is None:
            return
        positions = self.views.cameras[:, :3].astype(np.float64)
        centre = (positions.min(0) + positions.max(0)) / 2
        self.move(centre + self.extent * np.array([0.9, -0.9, 1.0]), centre, _LENS_OUTSIDE)

    def move(self, position: Camera, look_at: Camera, field_of_view: float) -> None:
        """Move the browser's camera, and change its lens (degrees)."""
        with self.client.atomic():
            self.client.camera.fov = math.radians(field_of_view)
            self.client.camera.position = position
            self.client.camera.look_at = look_at

    @property
    def camera(self) -> Camera:
        """The browser's camera as x, y, z, yaw, pitch: (5,)."""
        at = self.client.camera
        return camera_at(at.position, at.wxyz, self.gallery.geometry.yaw_sign)

    @property
    def extent(self) -> float:
        """Size of the scene: of the box of its cameras, or the nearest depth if they stand together."""
        if self.views is None:
            return 1.0
        return max(float(np.ptp(self.views.cameras[:, :3], axis=0).max()), self.gallery.geometry.depth_range[0])

    def draw_panel(self) -> None:
        """Add the controls."""
        gui, gallery = self.client.gui, self.gallery
        self._error = gui.add_markdown("", visible=False)
        with gui.add_folder("Scene"):
            self._split = gui.add_dropdown("split", tuple(gallery.datasets), initial_value=self.selection.split)
            self._scene: Any = gui.add_number("scene", 0, min=0, max=self._last(), step=1)
            step = gui.add_button_group("step", ("previous", "next"))
            self._facts = gui.add_markdown("")
        with gui.add_folder("Context"):
            choice = gui.add_button_group("choose", (f"{_CONTEXT_AT_FIRST} at random", "none"))
            self._context = gui.add_markdown("")
            self._strip = gui.add_image(np.full((1, 1, 3), 255, np.uint8), format="png")
        with gui.add_folder("View"):
            self._view: Any = gui.add_number("view", 0, min=0, max=gallery.views - 1, step=1)
            look = gui.add_button("look from here")
            overview = gui.add_button("look from outside")
            frames = gui.add_checkbox("frames", initial_value=True)
            self._size = gui.add_slider("size of cameras", 0.2, 3.0, 0.1, 1.0)

        async def choose_scene(_: Any) -> None:
            scene = min(max(self._scene.value, 0), self._last())
            self.choose(Selection(split=self.selection.split, scene=scene))

        async def choose_split(_: Any) -> None:
            self._scene.max = len(gallery.datasets[self._split.value]) - 1
            self._scene.value = 0
            self.choose(Selection(split=self._split.value, scene=0))

        async def go(event: Any) -> None:
            last = self._last()
            scene = self.selection.scene + (1 if event.target.value == "next" else -1)
            self._scene.value = min(max(scene, 0), last)
            self.choose(Selection(split=self.selection.split, scene=self._scene.value))

        async def choose_context(event: Any) -> None:
            if event.target.value == "none":
                self.choose(Selection(split=self.selection.split, scene=self.selection.scene))
            else:
                seed = time.monotonic_ns() & 0xFFFFFFFF
                self.choose(self.selection.at_random(_CONTEXT_AT_FIRST, gallery.views, seed))

        async def look_from(_: Any) -> None:
            self.look_from(int(self._view.value))

        async def look_from_outside(_: Any) -> None:
            self.look_from_outside()

        async def show_frames(_: Any) -> None:
            self._frames_shown = frames.value
            self.post("scene", self._draw)

        async def resize(_: Any) -> None:
            for frustum in self._frustums.values():
                frustum.scale = self._scale * self._size.value

        self._split.on_update(choose_split)
        self._scene.on_update(choose_scene)
        step.on_click(go)
        choice.on_click(choose_context)
        look.on_click(look_from)
        overview.on_click(look_from_outside)
        frames.on_update(show_frames)
        self._size.on_update(resize)

    def _last(self) -> int:
        return len(self.gallery.datasets[self.selection.split]) - 1

    def choose(self, selection: Selection) -> None:
        """Show another scene or context."""
        self.selection = selection
        self.post("scene", self._draw)

    def _draw(self) -> None:
        """Show the selection, in the worker's thread."""
        selection, before = self.selection, self.drawn
        views = self.gallery.views_of(selection.split, selection.scene)
        is_first = before is None
        is_other = before is None or (before.split, before.scene) != (selection.split, selection.scene)
        self.views, self.drawn = views, selection
        if is_other or self._frames_drawn != self._frames_shown:
            with self.client.atomic():
                self._draw_frustums(views)
            self._facts.content = self._describe(selection)
        with self.client.atomic():
            for view, frustum in self._frustums.items():
                colour = _CONTEXT if view in selection.context else _OTHER
                if tuple(frustum.color) != colour:
                    frustum.color = colour
        names = ", ".join(map(str, selection.context)) or "none; click a camera"
        self._context.content = f"views in the context: {names}"
        tiles = [Tile(f"view {view}", views.frames[view]) for view in selection.context] or [Tile("", None)]
        self._strip.image = tile_picture(tiles, _COLUMNS, _STRIP)
        self.show_error("")
        self.shown(is_first=is_first)

    def _draw_frustums(self, views: Views) -> None:
        for frustum in self._frustums.values():
            frustum.remove()
        sign, count = self.gallery.geometry.yaw_sign, len(views.cameras)
        height, width = views.frames.shape[1:3]
        chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_FRUSTUMS)).round().astype(int))
        self._scale = 0.07 * self.extent
        quaternions = orientations(views.cameras, sign)
        self._frames_drawn = self._frames_shown
        self._frustums = {}
        for view in chosen.tolist():
            frustum = self.client.scene.add_camera_frustum(
                f"/views/{view}",
                fov=math.radians(self.gallery.geometry.field_of_view),
                aspect=width / height,
                scale=self._scale * self._size.value,
                thickness=2.0,
                thickness_units="screen",
                color=_OTHER,
                image=views.frames[view] if self._frames_drawn else None,
                format="png",
                wxyz=quaternions[view],
                position=views.cameras[view, :3].astype(np.float64),
                cast_shadow=False,
                receive_shadow=False,
            )
            frustum.on_click(self._on_click(view))
            self._frustums[view] = frustum

    def _on_click(self, view: int) -> Callable[[Any], Any]:
        async def toggle(_: Any) -> None:
            self._view.value = view
            self.choose(self.selection.toggle(view))

        return toggle

    def _describe(self, selection: Selection) -> str:
        gallery = self.gallery
        count = len(gallery.datasets[selection.split])
        geometry, (height, width) = gallery.geometry, gallery.size
        turn = "counter-clockwise" if geometry.yaw_sign > 0 else "clockwise"
        lines = [
            f"{gallery.scene_set}, {gallery.origin}: scene {selection.scene} of {count:,} ({selection.split})",
            f"{gallery.views} views of {width}x{height} pixels, field of view {geometry.field_of_view:g} degrees, "
            f"yaw {turn} from above",
        ]
        if gallery.views > len(self._frustums):
            lines.append(f"{len(self._frustums)} of {gallery.views} cameras are drawn")
        if gallery.is_assumed:
            lines.append(gallery.assumption)
        return "\n\n".join(map(plain, lines))


_Page = TypeVar("_Page", bound=ScenePage)


class Pages(Generic[_Page]):
    """The pages of all browsers of a server.

    Args:
        server: the server.
        log: receives one line per error.
        make: return the page of a browser.
    """

    def __init__(
        self,
        server: Server,
        log: Callable[[str], None],
        make: Callable[[viser.ClientHandle, Latest[Key]], _Page],
    ) -> None:
        self.worker: Latest[Key] = Latest(self._failed)
        self._log = log
        self._make = make
        self.open: dict[int, _Page] = {}
        server.on_client_disconnect(self._forget)
        server.on_client_connect(self._add)

    async def _add(self, client: viser.ClientHandle) -> None:
        self.open[client.client_id] = self._make(client, self.worker)

    async def _forget(self, client: viser.ClientHandle) -> None:
        self.open.pop(client.client_id, None)
        self.worker.forget(lambda key: key[0] == client.client_id)

    def _failed(self, key: Key, error: Exception) -> None:
        """Show an error in its browser; an unexpected one does not end the viewer either."""
        page = self.open.get(key[0])
        if page is None:
            return  # a browser that left while its work ran
        text = str(error) if isinstance(error, GQNError | OSError) else f"{type(error).__name__}: {error}"
        self._log(f"Error: {text}")
        page.show_error(text)


def plain(text: str) -> str:
    """Return text as Markdown that shows it unchanged."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!<>|~$" else letter for letter in text)
