"""A server that misbehaves: the right bytes in the end, or an error and no partial file.

The server is a real one on this machine (fault_server.py). Each try puts random faults of one kind into its responses
and checks the result. Then the server recovers, and the same command must end with the right bytes.
"""

import random
from datetime import timedelta

import pytest
from fault_server import Fault, FaultServer
from made_scenes import SET, make_raw_folder, tree

from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.download import download
from gqn_data.download.retry import RetryPolicy
from gqn_data.errors import GQNError
from gqn_data.io import paths
from gqn_data.io.paths import parse_path
from gqn_data.schema.catalog import SCENE_SETS

ROW = SCENE_SETS[SET]
QUICK = RetryPolicy(attempts=3, restarts=2, sleep=lambda _: None)
FILES = (1, 2, 3)

# By kind: makes a fault for a file of about `size` bytes.
FAULTS = {
    "a connection that is cut": lambda dice, size: Fault(cut=dice.randrange(size)),
    "a connection that is reset": lambda dice, size: Fault(reset=dice.randrange(size)),
    "a connection that stalls": lambda dice, size: Fault(stall=dice.randrange(size)),
    "503": lambda dice, _: Fault(status=503, headers=dice.choice([{}, {"Retry-After": "1"}])),
    "500, 502, 504": lambda dice, _: Fault(status=dice.choice([500, 502, 504])),
    "404": lambda *_: Fault(status=404),
    "416": lambda *_: Fault(status=416),
    "too few bytes": lambda dice, size: Fault(fewer=dice.randint(1, size)),
    "too many bytes": lambda dice, size: Fault(more=dice.randbytes(dice.randint(1, size))),
    "wrong bytes": lambda dice, size: Fault(flip=dice.randrange(size)),
    "another part than was asked for": lambda dice, _: Fault(shift=dice.choice([-9, -1, 1, 9])),
    "all of the file for a part of it": lambda dice, size: Fault(ignore_range=True, cut=dice.choice([None, size // 2])),
    "another entity tag": lambda *_: Fault(headers={"ETag": '"another"'}),
    "another file": lambda dice, size: Fault(content=dice.randbytes(dice.randint(1, 2 * size))),
    "a web page": lambda *_: Fault(content=b"<!DOCTYPE html><html><body>Please sign in</body></html>"),
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Make a folder to serve: source files, and a dataset made of them."""
    folder = tmp_path_factory.mktemp("mirror")
    raw = make_raw_folder(folder / SET, train=(9, 8, 7), test=(1,))
    convert(raw, ROW, folder, Options(formats=("webdataset",), shard_bytes=50_000, workers=1))
    return folder


def download_it(server, root):
    download(ROW, root, split="train", files=FILES, base_url=server.url, workers=2, retry=QUICK, timeout=0.5)


def convert_it(server, root):
    source = parse_path(f"{server.url}/webdataset/{SET}")
    convert(source, ROW, root, Options(formats=("zarr",), shard_bytes=20_000, workers=1))


SLOW = "convert a dataset on a web server"
WORK = {"download": (download_it, 6000), SLOW: (convert_it, 20_000)}


def whole_files(root):
    """Return the files under final names."""
    between = (".part", ".part.json", ".partial", ".lock")
    return {name: data for name, data in tree(root).items() if not name.endswith(between) and ".work/" not in name}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("work", ["download", pytest.param(SLOW, marks=pytest.mark.slow)])
def test_bad_responses_end_with_the_right_bytes_or_an_error(work, fault, mirror, tmp_path, monkeypatch, faults):
    do, size = WORK[work]
    monkeypatch.setitem(paths._CLIENT, "read_timeout", timedelta(seconds=0.5))  # usually a minute
    tries = faults.tries(1)
    wrong = []
    with FaultServer(mirror) as server:
        monkeypatch.setenv("GQN_CACHE", str(tmp_path / "cache"))
        do(server, tmp_path / "whole")
        expected = whole_files(tmp_path / "whole")
        usual = len(server.gets())  # responses with a body; the faults come between them
        for number in range(tries):
            dice = random.Random(f"{work} {fault} {number}")
            root = tmp_path / str(number)
            monkeypatch.setenv("GQN_CACHE", str(tmp_path / f"cache{number}"))
            answers = [None] * dice.randrange(usual) + [FAULTS[fault](dice, size) for _ in range(dice.randint(1, 6))]
            server.next(*answers)
            try:
                do(server, root)
                said = ""
            except GQNError as error:
                said = str(error)
                if "\n" in said or server.url not in said:
                    wrong.append(f"{number}: error is {said!r}")
            found = whole_files(root)
            wrong_files = [name for name, data in found.items() if expected.get(name) != data]
            if wrong_files or (not said and found != expected):
                wrong.append(f"{number}: wrong files {wrong_files}; {said or 'not reported'}")
            server.forget()
            do(server, root)
            if whole_files(root) != expected:
                wrong.append(f"{number}: the rerun gave other bytes")
    assert not wrong, "\n".join(wrong)
    faults.record(
        f"bad server: {fault}",
        holds="the right bytes, or an error with the URL and no partial file; a rerun gives the right bytes",
        tries=tries,
        survived=tries - len(wrong),
    )
