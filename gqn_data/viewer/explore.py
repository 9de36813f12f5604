"""`gqn-data explore`: a dataset in the browser."""

from __future__ import annotations

from collections.abc import Callable

from gqn_data.io.paths import DatasetPath
from gqn_data.viewer.gallery import Gallery
from gqn_data.viewer.page import Pages, ScenePage
from gqn_data.viewer.server import address_of, open_server, wait_for_interrupt


def explore(
    path: DatasetPath,
    *,
    host: str,
    port: int,
    log: Callable[[str], None],
    opened: Callable[[str], None],
) -> None:
    """Serve a dataset until Ctrl-C.

    Args:
        path: a dataset, or a `render:` address.
        host: address to listen on.
        port: port; the next free one is taken if it is not free.
        log: receives lines for the user.
        opened: called with the address once the page can be opened.

    Raises:
        OptionError: the cameras have another meaning, or the address or port cannot be used.
        SourceMissing: the path is not a dataset.
    """
    gallery = Gallery(path)
    if gallery.is_assumed:
        log(gallery.assumption)
    server = open_server(f"{gallery.scene_set}", host, port, log)
    pages = Pages(server, log, lambda client, worker: ScenePage(client, gallery, worker))
    try:
        opened(address_of(server))
        wait_for_interrupt()
    finally:
        pages.worker.close()
        server.stop()
