"""`overwrite` removes nothing old before the new dataset is whole, in every container, on disks and in stores."""

import shutil

import pytest
from made_scenes import SET, make_raw_folder, tree

from gqn_data.convert import convert
from gqn_data.convert import destination as destination_module
from gqn_data.convert.from_renderer import render_containers
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError
from gqn_data.formats import FORMATS, WRITABLE
from gqn_data.io import atomic
from gqn_data.io.paths import parse_path
from gqn_data.render.request import Request
from gqn_data.schema.catalog import SCENE_SETS

ROW = SCENE_SETS[SET]
KIND = "found in use: an interrupted --overwrite loses the old dataset"
HOLDS = "until the new dataset is whole, the old one is; then the new one"


def options(name, **more):
    return Options(formats=(name,), workers=1, shard_bytes=2000, **more)


def objects(folder):
    return {name: (folder / name).read_bytes() for name, _ in folder.files()}


class Killed(BaseException):
    """Stands for a kill: nothing after it runs but `finally`."""


def killing(monkeypatch, call):
    """Let the process die at the n-th write, rename or removal, for growing n, until it survives."""
    survivors = []
    step = 0
    while True:
        step += 1
        left = step
        with monkeypatch.context() as patch:

            def counted(function):
                def die_or_call(*arguments, **named):
                    nonlocal left
                    left -= 1
                    if left == 0:
                        raise Killed
                    return function(*arguments, **named)

                return die_or_call

            for module, name in ((atomic, "writing"), (atomic, "remove_folder"), (destination_module.Path, "rename")):
                patch.setattr(module, name, counted(getattr(module, name)))
            try:
                call()
            except Killed:
                survivors.append(step)
            else:
                return len(survivors)


@pytest.mark.parametrize("name", WRITABLE)
def test_an_overwrite_killed_anywhere_leaves_the_old_or_the_new(name, tmp_path, monkeypatch, faults):
    old_raw = make_raw_folder(tmp_path / "old" / SET, train=(4,), test=())
    new_raw = make_raw_folder(tmp_path / "new" / SET, train=(3, 3), test=(2,))
    folder = convert(old_raw, ROW, tmp_path / "root", options(name))[0].folder
    (folder / "notes.txt").write_text("mine")
    old = tree(folder)
    new = tree(convert(new_raw, ROW, tmp_path / "whole", options(name))[0].folder) | {"notes.txt": b"mine"}
    intact = 0

    def attempt():
        nonlocal intact
        try:
            convert(new_raw, ROW, tmp_path / "root", options(name, overwrite=True))
        finally:
            found = tree(folder) if folder.exists() else None
            kept = tree(folder.with_name(f".{SET}.old")) if found is None else None
            intact += (
                found in (old, new) or kept == old or (found is not None and found | {"notes.txt": b"mine"} == new)
            )

    kills = killing(monkeypatch, attempt)
    assert kills > 10
    assert tree(folder) == new
    assert sorted(path.name for path in folder.parent.iterdir()) == [SET]
    faults.record(KIND, holds=HOLDS, tries=kills + 1, survived=intact)


def test_an_overwrite_in_a_store_keeps_the_old_until_the_new_is_whole(s3, tmp_path, faults):
    old_raw = make_raw_folder(tmp_path / "old" / SET, train=(4,), test=())
    new_raw = make_raw_folder(tmp_path / "new" / SET, train=(3, 3), test=(2,))
    root, survived = parse_path(s3), 0
    names = [name for name in WRITABLE if FORMATS[name].pieces is None]  # pieces are written in place, on a disk
    for name in names:
        folder = convert(old_raw, ROW, root, options(name))[0].folder
        before = objects(folder)
        broken = make_raw_folder(tmp_path / name / SET, train=(3, 3), test=(2,))
        path = broken / "train" / "002-of-900.tfrecord"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(GQNError):
            convert(broken, ROW, root, options(name, overwrite=True))
        survived += objects(folder) == before
        convert(new_raw, ROW, root, options(name, overwrite=True))
        assert objects(folder) == tree(convert(new_raw, ROW, tmp_path / "whole", options(name))[0].folder)
        assert not any(key.startswith(".") for key, _ in folder.parent.files())
    faults.record(KIND, holds=HOLDS, tries=len(names), survived=survived)


def test_a_full_disk_during_an_overwrite_keeps_the_old_dataset(tmp_path, monkeypatch, faults):
    survived = 0
    for name in ("zarr", "numpy", "webdataset"):
        small = Request.of("sm5", scenes=30, frame_size=16, views=2)
        other = Request.of("sm5", scenes=40, frame_size=16, views=2, seed=3)
        folder = render_containers(small, tmp_path, options(name))[0].folder
        before = tree(folder)
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "check_free_space", lambda *_: None)
            patch.setattr(atomic.ChecksummedFile, "_put", no_space)
            with pytest.raises(GQNError):
                render_containers(other, tmp_path, options(name, overwrite=True))
        survived += tree(folder) == before
        assert len(open_dataset(render_containers(other, tmp_path, options(name, overwrite=True))[0].folder)) == 36
    faults.record(KIND, holds=HOLDS, tries=3, survived=survived)


def no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_dataset_behind_a_link_is_replaced_where_it_lies(tmp_path, faults):
    raw = make_raw_folder(tmp_path / "raw" / SET)
    folder = convert(raw, ROW, tmp_path / "root", options("zarr"))[0].folder
    elsewhere = tmp_path / "other disk" / SET
    elsewhere.parent.mkdir()
    shutil.move(folder, elsewhere)
    folder.symlink_to(elsewhere)
    convert(raw, ROW, tmp_path / "root", options("zarr", overwrite=True, limit=2))
    assert folder.is_symlink()
    assert len(open_dataset(folder)) == 2
    assert [path.name for path in elsewhere.parent.iterdir()] == [SET]
    faults.record(KIND, holds=HOLDS, tries=1, survived=1)
