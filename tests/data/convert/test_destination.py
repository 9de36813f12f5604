"""Files of others in the folder of a new dataset are never replaced."""

import re
import shutil

import pytest
from made_scenes import SET, made_scene, make_raw_folder, tree

from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.errors import DestinationError, OptionError
from gqn_data.formats import WRITABLE
from gqn_data.schema.catalog import SCENE_SETS

OF_OTHERS = ["README.md", "croissant.json", "SHA256SUMS", "train/photo.png", "test_images.npy", "train-000.tar"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return make_raw_folder(tmp_path_factory.mktemp("raw") / SET)


def converting(raw, root, name):
    def write():
        convert(raw, SCENE_SETS[SET], root, Options(formats=(name,), workers=1))

    return root / name / SET, write


def writing(raw, root, name):
    def write():
        with SceneWriter(root / name / "own", format=name) as writer:
            writer.add(made_scene(0).frames, made_scene(0).cameras)

    return root / name / "own", write


CASES = [(name, by) for name in WRITABLE for by in (converting, writing) if (name, by) != ("mirror", writing)]


@pytest.mark.parametrize(("name", "by"), CASES)
def test_files_of_others_are_kept_and_named(name, by, raw, tmp_path):
    for of_others in OF_OTHERS:
        folder, write = by(raw, tmp_path, name)
        (folder / of_others).parent.mkdir(parents=True)
        (folder / of_others).write_text("mine")
        with pytest.raises(DestinationError, match=re.escape(of_others)):
            write()
        assert tree(folder) == {of_others: b"mine"}
        shutil.rmtree(tmp_path / name)


def test_other_files_do_not_hinder(raw, tmp_path):
    folder, write = converting(raw, tmp_path, "numpy")
    (folder / "train").mkdir(parents=True)  # empty, as a killed conversion leaves it
    (folder / "notes.md").write_text("mine")
    write()
    assert len(open_dataset(folder, "train")) > 0
    assert (folder / "notes.md").read_text() == "mine"


def test_a_scene_writer_refuses_before_the_first_scene(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("mine")
    with pytest.raises(DestinationError, match=r"README\.md"), SceneWriter(tmp_path / "own"):
        pytest.fail("the block has begun")


@pytest.mark.parametrize("below", ["own", "own/deep"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_in_the_path_of_the_folder_is_named(kind, below, tmp_path):
    blocking = tmp_path / "own"
    blocking.write_text("mine") if kind == "file" else blocking.symlink_to("nowhere")
    found = f"^{re.escape(str(blocking))}: found a file"
    with pytest.raises(DestinationError, match=found), SceneWriter(tmp_path / below):
        pytest.fail("the block has begun")
    assert blocking.is_symlink() or blocking.read_text() == "mine"


@pytest.mark.parametrize("address", ["http://localhost:1/own", "hf://datasets/a/own"])
def test_a_scene_writer_refuses_a_web_server_without_asking_it(address):
    with pytest.raises(OptionError, match="cannot be written to"):
        SceneWriter(address)
