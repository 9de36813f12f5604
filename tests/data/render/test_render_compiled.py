"""Compiling: said when it happens, kept for the next process, and possible where nothing can be kept."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numba
import pytest
from made_scenes import tree

from gqn_data.render.compiled import compiled, compiled_entry, telling
from gqn_data.render.write import render_scene_set

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"scenes": 2, "frame_size": 16, "views": 1, "supersample": False, "workers": 1}
SAYS = "compiling the ray caster with numba, once: a few seconds\n"


def test_compiling_is_told_once_when_it_begins_and_not_when_nothing_is_compiled():
    told = []

    @compiled
    def plus(a, b):
        return a + b

    with telling(lambda: told.append(len(plus.signatures))):
        plus(1, 2)
        plus(1.0, 2.0)
    assert told == [0]
    with telling(lambda: told.append("again")):
        plus(1, 2)
    assert told == [0]


def test_a_run_whose_machine_code_is_kept_says_nothing(tmp_path, capfd):
    render_scene_set(tmp_path / "warm", "sm5", **SMALL)
    capfd.readouterr()
    render_scene_set(tmp_path / "again", "sm5", **SMALL)
    assert capfd.readouterr() == ("", "")


def test_where_no_folder_can_be_written_to_it_is_compiled_all_the_same(monkeypatch):
    def refuse(self):
        raise OSError("a read-only file system")

    monkeypatch.setattr(numba.core.caching._CacheLocator, "ensure_cache_path", refuse)

    def twice(a):
        return 2 * a

    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(twice)
    assert compiled_entry(twice)(21) == 42


def program(root, cache):
    """A rendering in a process of its own, which keeps machine code in a folder of its own."""
    code = (
        "import sys; from pathlib import Path; from gqn_data.render.write import render_scene_set; "
        f"render_scene_set(Path(sys.argv[1]), 'sm5', **{SMALL})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_two_processes_may_compile_at_once_and_the_next_one_finds_what_they_made(tmp_path):
    cache = tmp_path / "cache"
    both = [program(tmp_path / str(number), cache) for number in range(2)]
    said = [None, None]

    def hear(number):
        said[number] = both[number].communicate(timeout=300)

    threads = [threading.Thread(target=hear, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(said) <= {(b"", SAYS.encode()), (b"", b"")}  # the one may be done before the other begins
    assert (b"", SAYS.encode()) in said
    assert [process.returncode for process in both] == [0, 0]
    assert any(re.fullmatch(r".*\.nbi", path.name) for path in cache.rglob("*"))
    later = program(tmp_path / "later", cache)
    assert later.communicate(timeout=300) == (b"", b"")
    assert tree(tmp_path / "0") == tree(tmp_path / "1") == tree(tmp_path / "later")
