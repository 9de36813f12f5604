"""Record the viewer of a run as a GIF: the query moves around the scene, in the system's Chromium.

Usage:
    python tools/record_viewer.py demo/plane_sweep -o docs/pictures/explore.gif
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

# In a container: no sandbox for root, WebGL in software.
_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_WIDTH, _HEIGHT = 1200, 600
_MIDDLE = (400, 300)  # a point of the scene that the panel leaves free
_CROP = (220, 0, _WIDTH, _HEIGHT)
_SIZE = (784, 480)
_ZOOM = 7  # steps of the mouse's wheel
_FRAMES, _PRESSES = 48, 3  # frames, and steps of the slider between them
_MILLISECONDS = 90  # per frame
_COLOURS = 200


@contextlib.contextmanager
def explored(run: str) -> Iterator[str]:
    """Start `gqn explore` and yield its address."""
    command = [sys.executable, "-m", "gqn_model", "explore", run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as viewer:
        assert viewer.stdout is not None
        try:
            for line in viewer.stdout:
                if found := re.search(r"http://\S+", line):
                    yield found.group()
                    return
            raise SystemExit(f"{run}: the viewer did not start")
        finally:
            viewer.send_signal(signal.SIGINT)


def record(page: Page) -> list[Image.Image]:
    """Return the frames of a query that moves along the first slider and back, seen from outside of the scene."""
    page.get_by_label("query from").click()
    page.get_by_role("option", name="sliders").click()
    page.mouse.move(*_MIDDLE)
    page.mouse.down()
    page.mouse.move(_MIDDLE[0], _MIDDLE[1] + 60, steps=5)  # look from above
    page.mouse.up()
    for _ in range(_ZOOM):
        page.mouse.wheel(0, 120)
        page.wait_for_timeout(60)
    page.get_by_role("slider").first.focus()
    page.locator("text=prediction").first.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    frames = []
    for number in range(_FRAMES):
        for _ in range(_PRESSES):
            page.keyboard.press("ArrowRight" if number < _FRAMES // 2 else "ArrowLeft")
        page.wait_for_timeout(250)
        with Image.open(io.BytesIO(page.screenshot())) as shot:
            frames.append(shot.convert("RGB").crop(_CROP).resize(_SIZE, Image.Resampling.LANCZOS))
    return frames


def main() -> None:
    """Record a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", help="a run of gqn train")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the GIF")
    arguments = parser.parse_args()
    browser_path = shutil.which("chromium")
    if browser_path is None:
        raise SystemExit("chromium is not installed; `make test-browser` as root installs it on Debian")
    with explored(arguments.run) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=_FLAGS)
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        # viser's note on WebGL in software would lie over the scene.
        page.add_init_script(
            "document.addEventListener('DOMContentLoaded', () => document.head.append(Object.assign("
            "document.createElement('style'), {textContent: '.mantine-Notifications-root {display: none}'})))"
        )
        page.goto(address)
        page.get_by_text("prediction").first.wait_for()
        page.wait_for_timeout(4000)
        frames = record(page)
        browser.close()
    palette = frames[0].quantize(_COLOURS)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    first.save(arguments.output, save_all=True, append_images=rest, duration=_MILLISECONDS, loop=0, optimize=True)


if __name__ == "__main__":
    main()
