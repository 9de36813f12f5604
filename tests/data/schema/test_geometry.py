"""Geometry of the scene sets: facts by set, origin and renderer version."""

import math

import pytest

from gqn_data.errors import OptionError
from gqn_data.render import RENDERERS, mazes, rooms, shepard_metzler
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.geometry import Geometry, facts_of, geometry_of
from gqn_data.schema.origin import Origin

DEEPMIND = Origin(kind="deepmind")
OBJECTS = ("shepard_metzler_5_parts", "shepard_metzler_7_parts")


def rendered(version):
    return Origin(kind="rendered", details={"renderer": "gqn-toolkit", "version": version})


@pytest.mark.parametrize("name", RENDERERS)
def test_every_set_of_deepmind_has_facts_with_sources(name):
    facts = facts_of(name, DEEPMIND)
    for fact in (facts.field_of_view, facts.yaw_sign, facts.depth_range):
        assert len(fact.source) > 10
    assert geometry_of(name, Origin(kind="imported")) == facts.geometry


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", OBJECTS)
def test_rendered_objects_keep_the_geometry_of_their_version(name, version):
    old, new = geometry_of(name, rendered(version)), geometry_of(name, rendered(3))
    assert (old.field_of_view, old.yaw_sign, old.depth_range) == (50.0, 1, (0.6, 1.4))
    assert (new.field_of_view, new.yaw_sign) == (22.5, -1)
    assert new == geometry_of(name, DEEPMIND)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(set(RENDERERS) - set(OBJECTS)))
def test_other_sets_look_counter_clockwise_in_every_version(name, version):
    found = geometry_of(name, rendered(version))
    assert found.yaw_sign == 1
    assert found.field_of_view == (90.0 if name == "mazes" else 50.0)


def test_the_renderer_uses_the_field_of_view_of_the_facts():
    for module, name in ((shepard_metzler, OBJECTS[0]), (mazes, "mazes"), (rooms, "rooms_ring_camera")):
        assert math.degrees(module.FIELD_OF_VIEW) == pytest.approx(geometry_of(name, DEEPMIND).field_of_view)


@pytest.mark.parametrize("name", ["my_photos", *sorted(set(SCENE_SETS) - set(RENDERERS))])
def test_other_sets_have_no_geometry(name):
    assert geometry_of(name, Origin(kind="imported")) is None


def test_geometry_survives_json():
    found = geometry_of("mazes", DEEPMIND)
    assert Geometry.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    "change",
    [
        {"field_of_view": 0.0},
        {"field_of_view": 180.0},
        {"field_of_view": math.nan},
        {"field_of_view": "50"},
        {"field_of_view": True},
        {"yaw_sign": 0},
        {"yaw_sign": True},
        {"yaw_sign": None},
        {"depth_range": (0.0, 1.0)},
        {"depth_range": (2.0, 1.0)},
        {"depth_range": (1.0, math.inf)},
        {"depth_range": (1.0, math.nan)},
        {"depth_range": (3e-321, 1.0)},
        {"depth_range": (1.0, 1e30)},
        {"depth_range": (1.0,)},
        {"depth_range": 1.0},
        {"depth_range": ("1", "2")},
    ],
)
def test_impossible_geometry_is_refused(change):
    with pytest.raises(OptionError):
        Geometry(**{"field_of_view": 50.0, "yaw_sign": 1, "depth_range": (0.5, 2.0), **change})
