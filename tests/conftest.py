"""Fixtures shared by test modules, and the profile of hypothesis."""

import functools
import gc
import importlib.util
import inspect
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from collection import core_of, needed_packages, starts_processes
from fault_counts import FaultCounts
from hypothesis import HealthCheck, settings
from made_scenes import SET, make_raw_folder
from s3_server import environment, new_bucket, s3_server

from gqn_data.schema.catalog import SCENE_SETS

# No deadlines: machines differ in speed, which benchmarks/ measures.
settings.register_profile(
    "gqn", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.register_profile("core", settings.get_profile("gqn"), max_examples=10)
settings.load_profile("gqn")

# Since 8.2 click's runner captures stderr separately; before, only if asked.
if "mix_stderr" in inspect.signature(CliRunner).parameters:
    CliRunner.__init__ = functools.partialmethod(CliRunner.__init__, mix_stderr=False)

# A shell makes background processes ignore Ctrl-C, and child processes that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MAZES = Path(__file__).resolve().parents[2] / "shared" / "data" / "mazes"


@pytest.fixture(scope="session", autouse=True)
def temporary_cache(tmp_path_factory):
    """Keep local copies of remote files in a temporary folder instead of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GQN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def scene_set():
    """Return the scene set of the synthetic scenes."""
    return SCENE_SETS[SET]


@pytest.fixture(scope="session")
def shared_raw(tmp_path_factory):
    """Return a read-only raw folder: 7 train scenes in two source files, and 2 test scenes."""
    return make_raw_folder(tmp_path_factory.mktemp("shared") / "raw" / SET)


@pytest.fixture
def raw(tmp_path):
    """Return a raw folder with the same scenes that the test may change."""
    return make_raw_folder(tmp_path / "root" / "raw" / SET)


class _SkippedModule(pytest.Module):
    """A test module that is skipped, since a package that it imports is not installed."""

    def collect(self):
        """Skip the module."""
        missing = ", ".join(sorted(filter(_is_missing, needed_packages(self.path))))
        pytest.skip(f"not installed: {missing}", allow_module_level=True)


def _is_missing(package):
    return importlib.util.find_spec(package) is None


def pytest_pycollect_makemodule(module_path, parent):
    """Skip modules that need torch or numba if it is not installed."""
    if any(map(_is_missing, needed_packages(module_path))):
        return _SkippedModule.from_parent(parent, path=module_path)
    return None


def pytest_addoption(parser):
    """Add `--core`, the selection of `make test-core`."""
    parser.addoption(
        "--core", action="store_true", help="quick tests only: no processes, few cases per test, few examples"
    )


def pytest_configure(config):
    """Take few examples in the core suite, where a test does not say how many."""
    if config.option.core:
        settings.load_profile("core")


def pytest_collection_modifyitems(config, items):
    """Mark tests that ask for `faults` as `fault`, and those that start processes as `process`; select the core."""
    for item in items:
        if "faults" in getattr(item, "fixturenames", ()):
            item.add_marker("fault")
        if starts_processes(item.path, getattr(item, "originalname", None) or item.name):
            item.add_marker("process")
    if config.option.core:
        kept = core_of(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


def pytest_collection_finish():
    """Exempt what collection has made from garbage collection: tests collect garbage, and would visit it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def faults(request):
    """Return the counter of a fault test: `tries` gives the number of tries, `record` records the outcome."""
    return FaultCounts(request.node.nodeid)


@pytest.fixture(scope="session")
def s3_address():
    """Yield the address of an S3 server that runs during the session of this test process."""
    with s3_server() as address:
        yield address


@pytest.fixture
def s3(s3_address, monkeypatch):
    """Return the URL of an empty bucket on a local S3 server, which the environment variables name."""
    for name, value in environment(s3_address).items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3_address)


@pytest.fixture(scope="session")
def mazes():
    """Return the read-only folder of DeepMind's mazes; skip the test if it is missing."""
    if not MAZES.is_dir():
        pytest.skip("DeepMind's mazes are not on this machine (../shared/data/mazes)")
    return MAZES
