"""Fetching: how one remote file comes to the disk, whole and checked, however often it takes.

Which files are fetched is decided in `download` and `arriving`. A protocol is a class here, and `fetch` knows none.
Floor: above `origin`, `tfrecords` and `storage`, below `download` and `verify`. Imports those three, `json_files` and
`stores`.
"""
