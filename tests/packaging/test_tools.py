"""The scripts behind `make check-lowest` and `make check-wheel`."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import lowest_versions  # noqa: E402
import walk_readme  # noqa: E402

PYPROJECT = """\
[project]
name = "scenes"
dependencies = ["click>=8.1.3", "Lazy_Loader>=0.4"]
optional-dependencies.render = ["numba>=0.61"]
optional-dependencies.test = ["scenes[render]", "moto[s3]>=5.0", "click>=8"]
"""
MARKDOWN = """\
# Title

```sh
gqn-data render mazes --scenes 500 --workers 8    # many
# only a comment
gqn train --shards data && gqn evaluate runs/first
aws s3 sync a b
gqn-data view mazes -o '#1.png'
```

```python
import gqn_data
```

```text
not a command
```
"""


def test_the_base_install_is_pinned_to_its_floors():
    constraints = "# comment\nclick==8.5.1\nmoto==5.2.5\nnumpy==2.4.6\n"
    assert lowest_versions.lowest(PYPROJECT, constraints) == [
        "click==8.1.3",
        "lazy-loader==0.4",
        "numba==0.61",
        "moto==5.2.5",
    ]


@pytest.mark.parametrize("line", ["click<9", "click>=8,<9", "click>=8.1; python_version < '3.12'", ""])
def test_a_requirement_of_another_form_is_refused(line):
    with pytest.raises(ValueError, match="expected name>=version"):
        lowest_versions.parse(line)


def test_every_requirement_of_the_base_install_names_its_floor():
    lines = lowest_versions.lowest((ROOT / "pyproject.toml").read_text(), "")
    assert len(lines) > 10
    assert all("==" in line for line in lines)


def test_the_commands_of_markdown_are_found_without_their_comments():
    assert [(command.line, command.language) for command in walk_readme.commands(MARKDOWN)] == [
        (4, "sh"),
        (6, "sh"),
        (7, "sh"),
        (8, "sh"),
        (12, "python"),
    ]
    texts = [command.text for command in walk_readme.commands(MARKDOWN)]
    assert texts[0] == "gqn-data render mazes --scenes 500 --workers 8"
    assert texts[3] == "gqn-data view mazes -o '#1.png'"
    assert texts[4] == "import gqn_data\n"


@pytest.mark.parametrize(
    ("text", "torch", "reason"),
    [
        ("gqn-data convert mazes", False, None),
        ("gqn train --shards data", True, None),
        ("gqn train --shards data", False, "needs torch"),
        ("gqn-data bench data", False, "needs torch"),
        ("from gqn_model import load_model", False, "needs torch"),
        ("gqn-data convert mazes --out s3://BUCKET/gqn", True, "needs a network"),
        ("gqn-data download mazes", True, "needs a network"),
        ("gqn-data convert mazes --shard $SLURM_ARRAY_TASK_ID/16", True, "needs a cluster"),
        ("make demo", True, "needs the checkout"),
    ],
)
def test_what_cannot_run_here_is_skipped_with_a_reason(text, torch, reason):
    assert walk_readme.reason_to_skip(text, torch=torch) == reason


def test_large_numbers_become_small():
    assert walk_readme.smaller("gqn-data render mazes --scenes 2200 --workers 8") == (
        "gqn-data render mazes --scenes 30 --workers 2"
    )
    both = walk_readme.smaller("gqn train --shards data && gqn evaluate runs/first")
    train, evaluate = both.split(" && ")
    assert "--preset tiny" in train
    assert "--steps 2" in train
    assert evaluate == "gqn evaluate runs/first --scenes 3 --samples 1"
    assert walk_readme.smaller("gqn train --preset tiny").count("--preset") == 1
