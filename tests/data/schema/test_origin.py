"""Origins: two are never mixed in one folder, and layouts depend on them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_scenes import SET, VIEWS, make_raw_folder, rendered, tree

from gqn_data.errors import OriginError
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.layout import layout_of
from gqn_data.schema.origin import Origin, claim, read_origin
from gqn_data.sources.raw_folder import open_raw_folder

RENDERED = Origin.from_json(rendered(), "here")
OTHERS = [
    Origin(kind="deepmind", details={"bucket": "gs://gqn-dataset"}),
    Origin(kind="imported"),
    Origin(kind="rendered", details={**RENDERED.details, "seed": 6}),
    Origin(kind="rendered", details={}),
]


def test_a_folder_may_be_claimed_twice_by_the_same_origin(tmp_path):
    claim(tmp_path / "raw", RENDERED)
    assert read_origin(tmp_path / "raw") == RENDERED
    before = tree(tmp_path)
    claim(tmp_path / "raw", RENDERED)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("other", OTHERS, ids=lambda origin: f"{origin.kind} {dict(origin.details)}")
def test_another_origin_is_refused(other, raw):
    before = tree(raw)
    with pytest.raises(OriginError, match=f"{raw}: "):
        claim(raw, other)
    assert tree(raw) == before


def test_files_of_unknown_origin_are_not_claimed(tmp_path):
    raw = make_raw_folder(tmp_path / "raw", origin=False)
    assert read_origin(raw).kind == "imported"
    with pytest.raises(OriginError, match=r"source\.json is missing\), expected rendered"):
        claim(raw, RENDERED)
    assert not (raw / "source.json").exists()


@given(
    kind=st.sampled_from(["deepmind", "rendered", "imported"]),
    details=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=4),
)
def test_an_origin_survives_a_round_trip(kind, details):
    origin = Origin(kind=kind, details=details)
    assert Origin.from_json(json.loads(json.dumps(origin.to_json())), "here") == origin


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"kind": "found"}', '{"kind": 3}', '{"kind": "rendered", "details": 3}']
)
def test_an_invalid_source_json_is_refused(text, raw):
    (raw / "source.json").write_text(text)
    with pytest.raises(OriginError, match=r"source\.json"):
        read_origin(raw)
    with pytest.raises(OriginError):
        open_raw_folder(raw, SCENE_SETS[SET])


def test_only_rendered_folders_override_the_layout_of_the_catalogue():
    row = SCENE_SETS[SET]
    layout = layout_of(row, RENDERED)
    assert layout.frames_shape == (VIEWS, 16, 16, 3)
    assert layout.cameras_shape == (VIEWS, 5)
    for kind in ("deepmind", "imported"):
        assert layout_of(row, Origin(kind=kind, details={"views": 3})).frames_shape == (15, 64, 64, 3)
    assert layout_of(row, Origin(kind="rendered")).frames_shape == (15, 64, 64, 3)


@pytest.mark.parametrize(
    "details", [{"views": 0}, {"views": -1}, {"views": "3"}, {"frame_size": 0}, {"frame_size": 1.5}]
)
def test_an_invalid_layout_is_refused(details):
    with pytest.raises(OriginError, match=r"source\.json: .* is .*, expected 1 to 65536"):
        layout_of(SCENE_SETS[SET], Origin(kind="rendered", details=details))
