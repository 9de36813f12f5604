"""Fixtures that several test modules share, and how hypothesis runs here."""

import signal
from pathlib import Path

import pytest
from fault_counts import FaultCounts
from hypothesis import HealthCheck, settings
from made_scenes import SET, make_raw_folder
from s3_server import environment, new_bucket, s3_server

from gqn_data.schema.catalog import SCENE_SETS

# No deadlines: machines differ, and speed is measured in benchmarks/.
settings.register_profile(
    "gqn", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("gqn")

# What a shell runs in the background ignores Ctrl-C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MAZES = Path(__file__).resolve().parents[2] / "shared" / "data" / "mazes"


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_users(tmp_path_factory):
    """Copies of remote files go to a folder of this run, not to the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GQN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def scene_set():
    """The row of the set that the made scenes stand for."""
    return SCENE_SETS[SET]


@pytest.fixture(scope="session")
def shared_raw(tmp_path_factory):
    """A raw folder of 7 train scenes in two source files and 2 test scenes; for reading only."""
    return make_raw_folder(tmp_path_factory.mktemp("shared") / "raw" / SET)


@pytest.fixture
def raw(tmp_path):
    """The same in a folder of the test's own."""
    return make_raw_folder(tmp_path / "root" / "raw" / SET)


def pytest_collection_modifyitems(items):
    """Marks what asks for `faults`, so that `make faults` finds it in any folder."""
    for item in items:
        if "faults" in getattr(item, "fixturenames", ()):
            item.add_marker("fault")


@pytest.fixture
def faults(request):
    """Counts of a test of faults: `tries` says how many, `record` notes how it went."""
    return FaultCounts(request.node.nodeid)


@pytest.fixture(scope="session")
def s3_address():
    """The address of an S3 server of this test process's own."""
    with s3_server() as address:
        yield address


@pytest.fixture
def s3(s3_address, monkeypatch):
    """The URL of an empty bucket on a local S3 server that the environment names."""
    for name, value in environment(s3_address).items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3_address)


@pytest.fixture(scope="session")
def mazes():
    """The folder of DeepMind's own mazes; for reading only."""
    if not MAZES.is_dir():
        pytest.skip("DeepMind's mazes are not on this machine (../shared/data/mazes)")
    return MAZES
