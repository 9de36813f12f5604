"""Viewer of runs in the browser: predictions, which camera to ask about, one page per browser.

`page` and `explore` import viser (extra `viewer`), through `gqn_data.viewer`.
"""
