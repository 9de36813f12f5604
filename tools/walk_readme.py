"""Run the commands of a Markdown file in an empty folder, with small numbers in place of large ones.

    python tools/walk_readme.py README.md FOLDER

Each line of the `sh` blocks is run with the programs on PATH; so is each `python` block. Commands that need a network,
a cluster or the checkout are skipped, with the reason. Every command is printed with its exit status; the script ends
with status 1 if one failed.

`gqn-data`, `gqn` and `python` must be those of the environment to check. The standard library is all that is imported.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Commands that cannot run here, by the first pattern that matches.
SKIPPED = (
    (r"^(make|git|pip|docker)\b", "needs the checkout"),
    (r"^(aws|gsutil|az|hf|rsync)\b|\b(s3|gs|az|hf|https?)://|^gqn-data (download|push)|gqn push", "needs a network"),
    (r"tcp://|/shared/|SLURM|torchrun", "needs a cluster"),
    (r"numpy/mirror", "needs the numpy mirror"),
)
NEEDS_TORCH = re.compile(r"\bgqn (?!-)|\bgqn-data bench|SceneLoader|gqn_model")

# Large numbers, and what stands for them here.
SMALLER = (
    (r"--scenes \d+", "--scenes 30"),
    (r"--workers \d+", "--workers 2"),
    (r"workers=\d+", "workers=1"),
    (r"batch_size=\d+", "batch_size=4"),
    (r"(gqn train (?!.*--preset).*?)(?= &&|$)", r"\1 --preset tiny"),
    (
        r"(gqn train .*?)(?= &&|$)",
        r"\1 --steps 2 --batch-size 2 --workers 0 --core-steps 2 --hidden 16 --canvas 16 --probe-every 0 "
        "--logger none --checkpoint-every 2 --threads 1",
    ),
    (r"(gqn evaluate \S+)", r"\1 --scenes 3 --samples 1"),
    (r"(gqn sample \S+)", r"\1 --scenes 2"),
    (r"(gqn-data bench \S+)", r"\1 --seconds 0.2 --batch-size 4 --workers 0,1"),
    (r"(--mod (bf16|compiled|cuda_graph) ?)", ""),
)

# Run before the walk: stand-ins for data that a reader of the README has.
STAND_INS = ("gqn-data render mazes --scenes 30", "mkdir -p path/to && cp -r data/raw/mazes path/to/mazes")
PHOTOS = """\
from pathlib import Path
from PIL import Image
for scene in range(3):
    folder = Path(f"photos/scene-{scene}")
    folder.mkdir(parents=True)
    rows = ["image,x,y,z,yaw,pitch,fl_x"]
    for view in range(4):
        Image.new("RGB", (80, 72), (60 * scene, 60 * view, 90)).save(folder / f"{view}.jpg")
        rows.append(f"{view}.jpg,{scene}.0,{view}.0,0.0,0.5,0.0,90")
    (folder / "cameras.csv").write_text("\\n".join(rows))
"""
PYTHON_NAMES = """\
import numpy as np
frames, cameras = np.full((4, 32, 32, 3), 90, np.uint8), np.zeros((4, 5), np.float32)
"""


class Command(NamedTuple):
    """One line of a `sh` block, or a whole `python` block.

    Attributes:
        line: number of its line in the file.
        language: sh or python.
        text: without comments.
    """

    line: int
    language: str
    text: str


def commands(markdown: str) -> Iterator[Command]:
    """Yield the commands of a Markdown text in their order."""
    for block in re.finditer(r"^```(sh|python)\n(.*?)^```", markdown, re.M | re.S):
        first = markdown[: block.start()].count("\n") + 2
        if block[1] == "python":
            yield Command(first, "python", block[2])
            continue
        for number, line in enumerate(block[2].splitlines(), first):
            text = re.sub(r"(^|\s+)#\s.*$", "", line).strip()
            if text:
                yield Command(number, "sh", text)


def reason_to_skip(text: str, *, torch: bool) -> str | None:
    """Return why a command cannot run here; None if it can."""
    for pattern, reason in SKIPPED:
        if re.search(pattern, text, re.M):
            return reason
    if not torch and NEEDS_TORCH.search(text):
        return "needs torch"
    return None


def smaller(text: str) -> str:
    """Return a command with small numbers."""
    for pattern, replacement in SMALLER:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` and return its output, stderr included."""
    environment = {**os.environ, "GQN_CACHE": str(folder / "cache"), "COLUMNS": "100"}
    for name in ("PYTHONPATH", "GQN_DATA"):
        environment.pop(name, None)
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def walk(readme: Path, folder: Path) -> int:
    """Run the commands of `readme` in `folder`; return how many failed."""
    torch = run(["python", "-c", "import torch"], folder).returncode == 0
    shutil.copytree(readme.parent / "examples", folder / "examples")
    for text in STAND_INS:
        if (done := run(["sh", "-ec", text], folder)).returncode:
            raise SystemExit(f"{text}: exit {done.returncode}\n{done.stdout}")
    run(["python", "-c", PHOTOS], folder)
    counts = {"run": 0, "skipped": 0, "failed": 0}
    for command in commands(readme.read_text(encoding="utf-8")):
        where = f"{readme.name}:{command.line}"
        if reason := reason_to_skip(command.text, torch=torch):
            counts["skipped"] += 1
            print(f"{where}: skipped, {reason}: {command.text.splitlines()[0]}", flush=True)
            continue
        text = smaller(command.text)
        begun = time.monotonic()
        if command.language == "python":
            done = run(["python", "-c", PYTHON_NAMES + text], folder)
        else:
            done = run(["sh", "-ec", text], folder)
        seconds = time.monotonic() - begun
        print(f"{where}: exit {done.returncode}, {seconds:.1f} s: {text.splitlines()[0]}", flush=True)
        counts["failed" if done.returncode else "run"] += 1
        if done.returncode:
            print(done.stdout, flush=True)
    print(", ".join(f"{number} {what}" for what, number in counts.items()))
    return counts["failed"]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    readme, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder}: not empty")
    folder.mkdir(parents=True, exist_ok=True)
    raise SystemExit(1 if walk(readme, folder) else 0)
