"""`gqn-data explore` in a real browser: frames at their places, clicks, several browsers, strangers, errors."""

import contextlib
import http.server
import io
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("viser", reason="viser is not installed: pip install '.[viewer]'")
pytest.importorskip("playwright", reason="playwright is not installed: pip install '.[dev]'")
pytest.importorskip("numba", reason="numba is not installed: pip install '.[render]'")


from windows import wait_until

from gqn_data.errors import CorruptFrame
from gqn_data.viewer.gallery import Gallery
from gqn_data.viewer.page import Pages, ScenePage
from gqn_data.viewer.server import address_of, open_server

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "render:rooms_ring_camera,scenes=6,views=6"
BROKEN = 4  # scene that cannot be read


class Viewer:
    """A viewer in this process, whose pages a test can look into."""

    def __init__(self, address):
        self.lines = []
        gallery = Gallery(address)
        read = gallery._read

        def read_or_fail(split, scene):
            if scene == BROKEN:
                raise CorruptFrame("view 2: not a JPEG")
            return read(split, scene)

        gallery._read = read_or_fail
        self.server = open_server("rooms_ring_camera", "127.0.0.1", 8300, self.lines.append)
        self.pages = Pages(self.server, self.lines.append, lambda client, worker: ScenePage(client, gallery, worker))
        self.address = address_of(self.server)

    def open(self, visit):
        """Open a window; return it and its page once its scene is drawn."""
        known = set(self.pages.open)
        window = visit(self.address)
        new = wait_until(window, lambda: set(self.pages.open) - known)
        page = self.pages.open[new.pop()]
        wait_until(window, lambda: page.drawn)
        return window, page


@pytest.fixture(scope="module")
def viewer(chromium):
    viewer = Viewer(ADDRESS)
    yield viewer
    viewer.pages.worker.close()
    viewer.server.stop()


def canvas(window):
    """Return the window's picture without the panel: float (height, height, 3), the square in the middle."""
    pixels = np.asarray(Image.open(io.BytesIO(window.screenshot())).convert("RGB"), float)
    height, width, _ = pixels.shape
    left = (width - height) // 2
    return pixels[:, left : left + height]


def settled(window):
    """Wait until two pictures of the window are equal, and return the last."""
    before = canvas(window)
    for _ in range(60):
        window.wait_for_timeout(250)
        after = canvas(window)
        if np.array_equal(before, after):
            return after
        before = after
    raise AssertionError("the window does not settle")


def place_of(page, point):
    """Return where a point of the scene is in the window, in pixels, from the browser's camera."""
    at = page.client.camera
    forward = at.look_at - at.position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    offset = point - at.position
    depth = offset @ forward
    scale = at.image_height / 2 / np.tan(at.fov / 2) / depth
    return at.image_width / 2 + scale * (offset @ right), at.image_height / 2 - scale * (
        offset @ np.cross(right, forward)
    )


def frame_centre(page, view):
    """Return the point in the middle of the frame of a camera's frustum."""
    camera = page.views.cameras[view].astype(float)
    yaw, pitch = camera[3] * page.gallery.geometry.yaw_sign, camera[4]
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    half = np.tan(np.radians(page.gallery.geometry.field_of_view) / 2)
    # viser keeps the volume of a frustum independent of its lens.
    return camera[:3] + forward * page._frustums[view].scale / np.cbrt(half * half / 3)


def test_from_the_camera_of_a_view_one_sees_its_frame(viewer, visit):
    """Position, direction, lens, the way up and left: all have to agree for the pictures to be equal."""
    window, page = viewer.open(visit)
    window.get_by_label("view", exact=True).fill("3")
    window.get_by_label("view", exact=True).press("Enter")
    window.get_by_role("button", name="look from here").click()
    wait_until(window, lambda: np.allclose(page.client.camera.position, page.views.cameras[3, :3], atol=1e-4))
    seen = settled(window)
    frames = page.views.frames.astype(float)
    side = frames.shape[1]
    seen = np.asarray(Image.fromarray(seen.astype(np.uint8)).resize((side, side), Image.Resampling.BOX), float)
    free = slice(side // 3, side * 7 // 8), slice(side // 6, side * 2 // 3)  # of the panel, notes, and lines
    errors = [np.abs(seen - frame)[free].mean() for frame in frames]
    assert int(np.argmin(errors)) == 3
    assert errors[3] < 25, errors


def test_a_click_on_a_camera_takes_its_view_into_the_context_and_out(viewer, visit, screenshot):
    window, page = viewer.open(visit)
    settled(window)
    at = page.client.camera
    places = {view: place_of(page, frame_centre(page, view)) for view in range(6)}
    free = [view for view, (x, _) in places.items() if x < at.image_width / 2]  # not below the panel

    def gap(view):
        return min(math.dist(places[view], place) for other, place in places.items() if other != view)

    chosen = max(free, key=gap)  # not behind another one
    window.mouse.click(*places[chosen])
    wait_until(window, lambda: page.drawn.context == (chosen,))
    window.get_by_text(f"views in the context: {chosen}").wait_for()
    window.mouse.click(*places[chosen])
    wait_until(window, lambda: page.drawn.context == ())
    window.get_by_role("button", name="5 at random").click()
    wait_until(window, lambda: len(page.drawn.context) == 5)
    settled(window)
    screenshot(window, "explore-data")
    window.get_by_role("button", name="none").click()
    wait_until(window, lambda: page.drawn.context == ())


def test_scene_and_split_are_chosen_in_one_browser_without_moving_another(viewer, visit):
    (one, first), (_, second) = viewer.open(visit), viewer.open(visit)
    one.get_by_role("button", name="next").click()
    wait_until(one, lambda: first.drawn.scene == 1)
    one.get_by_text("scene 1 of 6").wait_for()
    assert not np.array_equal(first.views.frames, second.views.frames)
    one.get_by_label("split").click()
    one.get_by_role("option", name="test").click()
    wait_until(one, lambda: (first.drawn.split, first.drawn.scene) == ("test", 0))
    assert (second.drawn.split, second.drawn.scene) == ("train", 0)


def test_a_scene_that_cannot_be_read_is_one_line_and_others_follow(viewer, visit):
    window, page = viewer.open(visit)
    window.get_by_label("scene", exact=True).fill(str(BROKEN))
    window.get_by_label("scene", exact=True).press("Enter")
    window.get_by_text("view 2: not a JPEG").wait_for()
    assert "Error: view 2: not a JPEG" in viewer.lines
    window.get_by_role("button", name="previous").click()
    wait_until(window, lambda: page.drawn.scene == BROKEN - 1)
    window.get_by_text("view 2: not a JPEG").wait_for(state="hidden")


def test_a_page_of_a_stranger_cannot_connect(viewer, visit):
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<title>stranger</title>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        window = visit(f"http://127.0.0.1:{server.server_port}")
        script = """address => new Promise(done => {
            const socket = new WebSocket(address, ["viser-v1.1.1"]);
            socket.onopen = () => done("opened");
            socket.onerror = () => done("refused");
        })"""
        assert window.evaluate(script, viewer.address.replace("http", "ws")) == "refused"
        assert any(f"127.0.0.1:{server.server_port}" in line for line in viewer.lines)
    finally:
        server.shutdown()
        server.server_close()


def test_the_command_serves_says_its_port_and_ends_on_ctrl_c(visit):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, ROOT / "cli.py", "data", "explore", ADDRESS, "--port", str(port)]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            try:
                address = process.stdout.readline().strip()
                window = visit(address)
                window.get_by_text("rooms_ring_camera, rendered: scene 0 of 6").wait_for()
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
    assert process.returncode == 0
    assert out == ""
    assert err.splitlines() == [f"port {port} is taken: using {address.rpartition(':')[2]}", "viewer closed"]
