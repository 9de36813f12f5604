"""Fixtures: the system's Chromium, a page of a viewer in it, and where screenshots are written.

GQN_SCREENSHOTS=docs/pictures make test-browser    # write the screenshots of the docs
"""

import contextlib
import importlib.util
import os
import shutil
from pathlib import Path

import pytest

# Flags of a container: no sandbox for root, WebGL in software, no requests to servers of the browser's maker.
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZE = {"width": 960, "height": 600}


def pytest_collection_modifyitems(items):
    """Mark the tests of this folder as `browser`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium():
    """Yield the browser; skip the test without it."""
    for package in ("viser", "playwright"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install '.[dev]'")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed; `make test-browser` as root installs it on Debian")
    from playwright.sync_api import sync_playwright

    with (
        sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=path, args=FLAGS)) as browser,
    ):
        yield browser


@pytest.fixture
def visit(chromium):
    """Return a function that opens an address in a window without state of others."""
    with contextlib.ExitStack() as stack:

        def visit(address):
            page = stack.enter_context(contextlib.closing(chromium.new_page(viewport=SIZE)))
            # viser's note on WebGL in software would lie over the scene.
            page.add_init_script(
                "document.addEventListener('DOMContentLoaded', () => document.head.append(Object.assign("
                "document.createElement('style'), {textContent: '.mantine-Notifications-root {display: none}'})))"
            )
            page.goto(address)
            return page

        yield visit


@pytest.fixture
def screenshot(tmp_path):
    """Return a function that writes a screenshot of a page."""
    folder = Path(os.environ.get("GQN_SCREENSHOTS") or tmp_path)

    def screenshot(page, name):
        page.mouse.move(5, 5)
        page.wait_for_timeout(1000)
        page.screenshot(path=folder / f"{name}.png")

    return screenshot
