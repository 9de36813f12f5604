"""Compilation: announced when it happens, cached for later processes, and possible without a cache."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numba
import pytest
from made_scenes import tree

from gqn_data.render.compiled import compiled, compiled_entry, on_compile
from gqn_data.render.maze_cast import blend_pixels, cast_maze
from gqn_data.render.raycast import cast_views
from gqn_data.render.write import render_scene_set

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"scenes": 2, "frame_size": 16, "views": 1, "supersample": False, "workers": 1}
MESSAGE = "compiling the ray caster with numba, once: a few seconds\n"


def test_the_callback_runs_once_when_compilation_starts():
    calls = []

    @compiled
    def plus(a, b):
        return a + b

    with on_compile(lambda: calls.append(len(plus.signatures))):
        plus(1, 2)
        plus(1.0, 2.0)
    assert calls == [0]
    with on_compile(lambda: calls.append("again")):
        plus(1, 2)
    assert calls == [0]


def test_the_entry_points_are_cached_on_disk():
    for function in (cast_views, cast_maze, blend_pixels):
        assert isinstance(function._cache, numba.core.caching.FunctionCache), function


def test_a_run_with_cached_machine_code_prints_nothing(tmp_path, capfd):
    render_scene_set(tmp_path / "warm", "sm5", **SMALL)
    capfd.readouterr()
    render_scene_set(tmp_path / "again", "sm5", **SMALL)
    assert capfd.readouterr() == ("", "")


def test_functions_compile_without_a_writable_cache_folder(monkeypatch):
    def refuse(self):
        raise OSError("a read-only file system")

    monkeypatch.setattr(numba.core.caching._CacheLocator, "ensure_cache_path", refuse)

    def twice(a):
        return 2 * a

    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(twice)
    assert compiled_entry(twice)(21) == 42


def program(root, cache):
    """Start a rendering process with a separate cache folder."""
    code = (
        "import sys; from pathlib import Path; from gqn_data.render.write import render_scene_set; "
        f"render_scene_set(Path(sys.argv[1]), 'sm5', **{SMALL})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_two_processes_may_compile_at_once_and_share_the_cache(tmp_path):
    cache = tmp_path / "cache"
    both = [program(tmp_path / str(number), cache) for number in range(2)]
    outputs = [None, None]

    def communicate(number):
        outputs[number] = both[number].communicate(timeout=300)

    threads = [threading.Thread(target=communicate, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outputs) <= {(b"", MESSAGE.encode()), (b"", b"")}  # one may finish before the other starts
    assert (b"", MESSAGE.encode()) in outputs
    assert [process.returncode for process in both] == [0, 0]
    assert any(re.fullmatch(r".*\.nbi", path.name) for path in cache.rglob("*"))
    later = program(tmp_path / "later", cache)
    assert later.communicate(timeout=300) == (b"", b"")
    assert tree(tmp_path / "0") == tree(tmp_path / "1") == tree(tmp_path / "later")
