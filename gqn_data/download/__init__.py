"""Download the source files of a scene set from its bucket or a mirror, resumable and checked.

`download_set` fetches a set; `fetch` fetches one file over a `Remote`: `http_remote` or `store_remote`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_data.download.download_set import download as download

__all__ = ["download"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"download_set": ["download"]})
