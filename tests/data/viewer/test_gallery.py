"""Scenes for a page: read unchanged, or refused with a reason."""

import numpy as np
import pytest
from made_scenes import SIZE, VIEWS, made_scene, pattern

from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.errors import CorruptFrame, OptionError, SourceMissing
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.viewer.gallery import Gallery, Views
from gqn_data.viewer.selection import Selection
from gqn_data.viewer.tiles import Tile, tile_picture


def own_set(folder, *, splits=("train",), scenes=3, numbers=5, **options):
    """Write scenes whose frames are `pattern(scene, view)`; without `options` they do not state their geometry."""
    with SceneWriter(folder, **options) as writer:
        for split in splits:
            for scene in range(scenes):
                frames = np.stack([pattern(scene, view) for view in range(VIEWS)])
                writer.add(frames, np.full((VIEWS, numbers), scene, np.float32), split=split)
    return folder


def test_frames_and_cameras_are_those_of_the_dataset(tmp_path):
    stated = {"field_of_view": 40.0, "yaw_sign": -1, "depth_range": (0.5, 4.0)}
    gallery = Gallery(own_set(tmp_path / "own", splits=("train", "test"), **stated))
    assert list(gallery.datasets) == ["train", "test"]
    assert gallery.geometry.field_of_view == 40
    assert gallery.geometry.yaw_sign == -1
    assert gallery.assumption == ""
    views = gallery.views_of("test", 2)
    np.testing.assert_array_equal(views.frames, [pattern(2, view) for view in range(VIEWS)])
    np.testing.assert_array_equal(views.cameras, np.full((VIEWS, 5), 2))


def test_the_geometry_of_a_set_of_the_catalogue_is_known(shared_raw, scene_set, tmp_path):
    (done,) = convert(shared_raw, scene_set, tmp_path, Options(formats=("numpy",)))
    gallery = Gallery(done.folder, first="test")
    assert list(gallery.datasets) == ["test", "train"]
    assert not gallery.is_assumed
    np.testing.assert_array_equal(gallery.views_of("train", 0).cameras, made_scene(0).cameras)


def test_a_set_without_geometry_is_shown_and_the_assumption_said(tmp_path):
    gallery = Gallery(own_set(tmp_path / "own"))
    assert gallery.is_assumed
    assert "50 degrees" in gallery.assumption
    assert "SceneWriter(field_of_view=" in gallery.assumption


def test_cameras_of_unknown_meaning_are_refused(tmp_path):
    folder = own_set(tmp_path / "own", numbers=3, camera_fields=("a", "b", "c"))
    with pytest.raises(OptionError, match=r"a, b, c, expected x, y, z, yaw, pitch.*gqn-data view"):
        Gallery(folder)


def test_a_folder_that_is_not_a_dataset_is_refused(tmp_path):
    with pytest.raises(SourceMissing):
        Gallery(tmp_path)


def test_a_camera_that_is_not_finite_is_refused_and_the_other_scenes_are_shown(tmp_path):
    def read(split, scene):
        cameras = np.zeros((VIEWS, 5), np.float32)
        cameras[1, 3] = np.nan if scene == 1 else 0
        return Views(np.zeros((VIEWS, SIZE, SIZE, 3), np.uint8), cameras)

    gallery = Gallery(own_set(tmp_path / "own"), read)
    with pytest.raises(CorruptFrame, match="view 1"):
        gallery.views_of("train", 1)
    assert gallery.views_of("train", 2).cameras.shape == (VIEWS, 5)


def test_recent_scenes_are_not_read_again(tmp_path):
    reads = []

    def read(split, scene):
        reads.append(scene)
        return Views(np.zeros((VIEWS, SIZE, SIZE, 3), np.uint8), np.zeros((VIEWS, 5), np.float32))

    gallery = Gallery(own_set(tmp_path / "own", scenes=20), read)
    for scene in (0, 1, 0, *range(2, 12), 0):
        gallery.views_of("train", scene)
    assert reads == [0, 1, *range(2, 12), 0]


def test_rendered_scenes_without_end_are_bounded():
    pytest.importorskip("numba")
    gallery = Gallery("render:rooms_ring_camera,views=2,frame_size=16")
    assert len(gallery.datasets["train"]) == 1000
    assert gallery.scene_set in SCENE_SETS


def test_a_click_takes_a_view_into_the_context_and_the_next_one_out():
    selection = Selection(split="train", scene=3)
    one = selection.toggle(4).toggle(1)
    assert one.context == (4, 1)
    assert one.toggle(4).context == (1,)
    assert selection.context == ()


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (5, 5), (10, 9), (99, 9)])
def test_a_random_context_leaves_a_view_to_ask_about(count, expected):
    context = Selection(split="train", scene=0).at_random(count, views=10, seed=1).context
    assert len(set(context)) == expected
    assert set(context) <= set(range(10))


def test_tiles_hold_enlarged_pixels_below_their_captions():
    frame = pattern(3, 1, size=8)
    picture = tile_picture([Tile("one", None), Tile("two", frame), Tile("three", frame)], columns=2, size=16)
    height, width, _ = picture.shape
    assert width == 2 * 16 + 4
    second = picture[height // 2 - 20 : height // 2, 20:36]
    enlarged = frame.repeat(2, 0).repeat(2, 1)
    windows = [second[top : top + 16] for top in range(len(second) - 15)]
    assert any(np.array_equal(window, enlarged) for window in windows)
