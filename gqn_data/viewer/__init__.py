"""Viewer in the browser: web server, poses, one page per browser, work that drops stale requests.

`server` and `page` import viser (extra `viewer`); the other modules do not.
"""
