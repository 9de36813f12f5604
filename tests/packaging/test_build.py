"""What the build writes into the package, and the facts that several files state."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from gqn_data.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
HOME = "https://host.example/gqn/blob/v0"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def load_setup():
    spec = importlib.util.spec_from_file_location("gqn_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def absolute_links():
    pytest.importorskip("setuptools")
    return load_setup().absolute_links


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("[docs](docs/loader.md)", f"[docs]({HOME}/docs/loader.md)"),
        ("[docs](docs/loader.md#states)", f"[docs]({HOME}/docs/loader.md#states)"),
        ("![Scenes](docs/a.jpg) and [b](b.md)", f"![Scenes]({HOME}/docs/a.jpg) and [b]({HOME}/b.md)"),
        ("[here](#commands)", "[here](#commands)"),
        ("[there](https://docs.example/x)", "[there](https://docs.example/x)"),
        ("[mail](mailto:a@b.example)", "[mail](mailto:a@b.example)"),
        ("```python\nx[0](docs/a.md)\n```\n[a](a.md)", f"```python\nx[0](docs/a.md)\n```\n[a]({HOME}/a.md)"),
    ],
)
def test_relative_links_start_at_the_home(absolute_links, markdown, expected):
    assert absolute_links(markdown, HOME) == expected
    assert absolute_links(markdown, HOME + "/") == expected


def test_links_stay_relative_while_the_project_has_no_home(absolute_links):
    readme = (ROOT / "README.md").read_text()
    assert absolute_links(readme, "") == readme


def test_no_link_of_the_readme_stays_relative(absolute_links):
    changed = absolute_links((ROOT / "README.md").read_text(), HOME)
    without_code = re.sub(r"^```.*?^```", "", changed, flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)]*)\)|(?:href|src)=\"([^\"]*)\"", without_code)
    assert targets
    assert [target for pair in targets for target in pair if target and not re.match(r"https?://|#", target)] == []


def test_every_relative_link_of_the_readme_names_a_file(absolute_links):
    changed = absolute_links((ROOT / "README.md").read_text(), HOME)
    found = re.findall(rf"\]\({re.escape(HOME)}/([^)#]+)", changed)
    assert [name for name in found if not (ROOT / name).exists()] == []


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"] == VERSION
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_test_extra_does_not_bring_torch():
    extras = PROJECT["project"]["optional-dependencies"]
    named = {re.split(r"[<>=\[ ]", line)[0] for line in [*PROJECT["project"]["dependencies"], *extras["test"]]}
    assert not named & {"torch", "torchvision", "pytorch-lightning", "safetensors"}


def test_the_dockerfile_installs_extras_and_copies_what_the_wheel_needs():
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, flags=re.M)
    assert {"cpu", "cuda"} <= {*stages}
    extras = re.findall(r"\.whl\)\[([\w,]+)\]", text)
    assert len(extras) == 2
    assert {*",".join(extras).split(",")} <= {*PROJECT["project"]["optional-dependencies"]}
    torch = next(one for one in PROJECT["project"]["optional-dependencies"]["train"] if one.startswith("torch"))
    assert f'"{torch}"' in text
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"gqn_data", "gqn_model", "pyproject.toml", "setup.py", "README.md", "LICENSE"} <= kept
    assert all((ROOT / name).exists() for name in kept)
