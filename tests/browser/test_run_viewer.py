"""`gqn explore` in a real browser: the prediction follows the mouse and the sliders, several browsers share a network.

GQN_SCREENSHOT_RUN=demo/plane_sweep makes the screenshots with a trained run.
"""

import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("viser", reason="viser is not installed: pip install '.[viewer]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install '.[dev]'")
pytest.importorskip("torch", reason="torch is not installed: pip install '.[train]'")
pytest.importorskip("numba", reason="numba is not installed: pip install '.[render]'")

from synthetic import small
from windows import wait_until

from gqn_data.viewer.server import address_of
from gqn_model.checkpoint.checkpoint import checkpoint_path
from gqn_model.train.run import start_run
from gqn_model.viewer import explore as explore_module
from gqn_model.viewer.page import RunPage

WIDE = {"width": 1280, "height": 620}  # the panel leaves the scene free
ADDRESS = "render:rooms_ring_camera,scenes=24,views=6,frame_size=32"


class Viewer:
    """`explore` in a thread, whose pages a test can look into."""

    def __init__(self, run, shards):
        self.lines, self.pages, self.stop = [], None, threading.Event()
        opened, self.run = threading.Event(), run
        patch = pytest.MonkeyPatch()
        patch.setattr(explore_module, "wait_for_interrupt", self.stop.wait)
        make = explore_module.Pages

        def pages(server, log, page):
            self.address, self.pages = address_of(server), make(server, log, page)
            return self.pages

        patch.setattr(explore_module, "Pages", pages)
        options = {"host": "127.0.0.1", "port": 8400, "device": "cpu", "opened": lambda _: opened.set()}
        self.thread = threading.Thread(
            target=explore_module.explore, args=(run, shards), kwargs=options | {"log": self.lines.append}, daemon=True
        )
        self.thread.start()
        assert opened.wait(120)
        self.close = lambda: (self.stop.set(), self.thread.join(20), patch.undo())

    def open(self, visit):
        """Open a window; return it and its page once it shows a prediction."""
        known = set(self.pages.open)
        window = visit(self.address)
        new = wait_until(window, lambda: set(self.pages.open) - known)
        page = self.pages.open[new.pop()]
        wait_until(window, lambda: "query" in page._words.content)
        return window, page


@pytest.fixture(scope="module")
def viewer(chromium, tmp_path_factory):
    trained = os.environ.get("GQN_SCREENSHOT_RUN")
    if trained:
        from gqn_data.io.paths import parse_dataset_path
        from gqn_model.checkpoint.run_folder import read_facts

        viewer = Viewer(Path(trained), parse_dataset_path(read_facts(Path(trained)).shards))
    else:
        run = tmp_path_factory.mktemp("runs") / "first"
        config = small(model="plane_sweep", steps=2, frame_size=32, batch_size=2, held_out=0)
        start_run(ADDRESS, config, out=run)
        viewer = Viewer(run, ADDRESS)
    yield viewer
    viewer.close()
    assert not viewer.thread.is_alive()


def follows(page):
    """Return whether the words in the panel are about the present query, up to the digits that they show."""
    numbers = re.findall(r"(?:x|y|z|yaw|pitch) (-?[0-9.]+)", page._words.content.replace("\\", ""))
    return len(numbers) == 5 and np.allclose([float(number) for number in numbers], page._query(), atol=0.0051)


def test_the_first_query_is_a_view_and_its_psnr_is_shown(viewer, visit, screenshot):
    window, page = viewer.open(visit)
    window.get_by_text("PSNR").wait_for()
    view = page._recorded.nearest(page.camera).view
    assert view not in page.drawn.context
    prediction = page._predictor.predict(
        ("test", 0), page.views, page.drawn.context, page.views.cameras[view], samples=0
    ).frame
    error = np.mean((prediction.astype(float) - page.views.frames[view] / 255) ** 2)
    assert f"PSNR {-10 * np.log10(error):.1f} dB" in page._words.content.replace("\\", "")


def test_the_prediction_follows_the_mouse_and_stale_queries_are_dropped(viewer, visit, screenshot):
    window, page = viewer.open(visit)
    focus = page._controls.focus
    answers = []
    answer = page._answer
    page._answer = lambda: (answers.append(page.camera.copy()), answer())
    before = page._picture.image.copy()
    window.mouse.move(300, 300)
    window.mouse.down()
    for step in range(20):
        window.mouse.move(300 - 8 * step, 300, steps=1)
        window.wait_for_timeout(20)
    window.mouse.up()
    wait_until(window, lambda: len(answers) > 3)
    wait_until(window, lambda: follows(page))
    assert not np.array_equal(page._picture.image, before)
    places = np.array(answers)
    # Dragging turns about the point that the cameras look at, so the query stays on the ring.
    radii = np.linalg.norm(places[:, :2] - focus[:2], axis=1)
    # The browser may report the place where it started, before it moved to the first view on the ring of radius 1.
    first = int(np.argmax(np.isclose(radii, 1, rtol=0.05)))
    np.testing.assert_allclose(radii[first:], 1, rtol=0.05)
    assert len(np.unique(places[first:].round(4), axis=0)) > 3


def test_the_sliders_move_a_camera_along_the_ring(viewer, visit, screenshot):
    window, page = viewer.open(visit)
    window.get_by_label("query from").click()
    window.get_by_role("option", name="sliders").click()
    wait_until(window, lambda: page._frustum is not None and page._frustum.visible)
    seen = page._picture.image.copy()
    slider = page._sliders[0]

    def moved():
        for _ in range(20):
            window.get_by_role("slider").first.press("ArrowRight")  # focuses it anew: the panel may have been redrawn
        return not np.array_equal(page._picture.image, seen)

    wait_until(window, moved)
    wait_until(window, lambda: follows(page))
    np.testing.assert_allclose(np.asarray(page._frustum.position), page._controls.camera([slider.value])[:3], atol=1e-6)
    window.get_by_text("prediction", exact=False).first.scroll_into_view_if_needed()
    window.locator("input").first.blur()
    window.set_viewport_size(WIDE)
    window.mouse.move(300, 300)
    window.mouse.wheel(0, 360)  # the whole ring, beside the panel
    screenshot(window, "explore-run")


def test_a_query_outside_the_scene_is_answered_and_said(viewer, visit):
    window, page = viewer.open(visit)
    window.get_by_role("button", name="look from outside").scroll_into_view_if_needed()
    window.get_by_role("button", name="look from outside").click()
    wait_until(window, lambda: "outside the recorded cameras" in page._words.content)
    wait_until(window, lambda: follows(page))


def test_no_context_view_is_said_and_another_browser_is_not_moved(viewer, visit):
    (one, first), (two, second) = viewer.open(visit), viewer.open(visit)
    one.get_by_role("button", name="none").scroll_into_view_if_needed()
    one.get_by_role("button", name="none").click()
    wait_until(one, lambda: "no context view" in first._words.content)
    assert "query" in second._words.content
    assert second.drawn.context
    second.look_from(3)
    wait_until(two, lambda: "against view 3" in second._words.content)
    assert isinstance(second, RunPage)


def test_a_checkpoint_that_changes_is_one_line_and_predictions_continue(viewer, visit):
    if os.environ.get("GQN_SCREENSHOT_RUN"):
        pytest.skip("a trained run is not damaged")
    window, page = viewer.open(visit)
    path = checkpoint_path(viewer.run, 2)
    path.write_bytes(path.read_bytes()[:-1])
    wait_until(window, lambda: any("shown still" in line for line in viewer.lines))
    window.wait_for_timeout(2500)
    assert len([line for line in viewer.lines if "shown still" in line]) == 1
    page.look_from(1)
    wait_until(window, lambda: "view 1" in page._words.content)
