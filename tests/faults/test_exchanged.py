"""Source files exchanged below an index: the index and the records are compared by all that read both."""

import os

import pytest
from made_scenes import SET, made_scene, make_raw_folder, write_source_file

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError
from gqn_data.inspect.verify import verify
from gqn_data.loader import SceneLoader
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources.raw_folder import open_raw_folder

ROW = SCENE_SETS[SET]


def exchange(one, other, *, keep_times):
    times = [path.stat().st_mtime_ns for path in (one, other)]
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])
    if keep_times:
        for path, time in zip((one, other), times):
            os.utime(path, ns=(time, time))


@pytest.fixture(params=[False, True], ids=["new times", "same times"])
def exchanged(tmp_path, request):
    """Index two source files of equal size, then exchange them."""
    raw = make_raw_folder(tmp_path / "raw" / SET, train=(3, 3), test=())
    # The same frames and other cameras, so that the files have one size.
    scenes = [made_scene(number)._replace(cameras=made_scene(50 + number).cameras) for number in range(3)]
    write_source_file(raw / "train" / "002-of-900.tfrecord", scenes)
    paths = sorted((raw / "train").glob("*.tfrecord"))
    size = max(path.stat().st_size for path in paths)
    assert {path.stat().st_size for path in paths} == {size}
    index_raw_folder(open_raw_folder(raw, ROW))
    before = [(scene.frames.copy(), scene.cameras.copy()) for scene in open_dataset(raw)]
    exchange(*paths, keep_times=request.param)
    return raw, before


def test_every_reader_of_both_notices_exchanged_files(exchanged, tmp_path, faults):
    raw, _ = exchanged
    reads = {
        "dataset": lambda: open_dataset(raw)[0].frames,
        "loader": lambda: next(iter(SceneLoader(raw, batch_size=2))),
        "convert": lambda: convert(raw, ROW, tmp_path / "out", Options(workers=1)),
    }
    survived = 0
    for read in reads.values():
        with pytest.raises(GQNError, match="another file"):
            read()
        survived += 1
    for deep in (False, True):
        found = verify(raw, ROW, deep=deep, workers=1).faults
        assert len(found) == 2
        survived += all("describes other scenes" in fault for fault in found)
    faults.record(
        "found in use: source files exchanged below their index",
        holds="noticed before a frame meets another scene's camera",
        tries=len(reads) + 2,
        survived=survived,
    )


def test_a_new_index_of_exchanged_files_is_right(exchanged):
    raw, before = exchanged
    index_raw_folder(open_raw_folder(raw, ROW))
    after = open_dataset(raw)
    for number, (frames, cameras) in enumerate(before[3:] + before[:3]):
        assert (after[number].frames == frames).all()
        assert (after[number].cameras == cameras).all()
    assert verify(raw, ROW, deep=True, workers=1).faults == ()
