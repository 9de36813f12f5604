"""Build the wheel and the sdist, install the wheel with several Pythons, and walk the README with each.

    python tools/check_wheel.py python3.11 python3.12 python3.13

Everything is made below build/. Interpreters that are not here are skipped, with a message. With 3.11 and 3.12 the
wheel is installed with the extra `train`, if a torch of constraints.txt can be installed; otherwise without it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "wheel"
WITH_TRAIN = ("3.11", "3.12")

# Files that the sdist must hold, one of each folder.
IN_SDIST = (
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "SECURITY.md",
    "cli.py",
    "constraints.txt",
    "benchmarks/__main__.py",
    "docs/decisions.md",
    "docs/pictures/scene-sets.jpg",
    "examples/photo_folder.py",
    "gqn_data/py.typed",
    "gqn_model/py.typed",
    "tests/conftest.py",
    "tests/support/prose.py",
    "tools/check_wheel.py",
)


def run(*command: str | Path, quiet: bool = False) -> bool:
    """Run a command in the root of the project and return whether it succeeded.

    Args:
        command: the program and its arguments.
        quiet: show its output only if it fails.
    """
    done = subprocess.run(list(map(str, command)), cwd=ROOT, check=False, capture_output=quiet, text=True)
    if quiet and done.returncode:
        print(done.stdout, done.stderr, sep="\n")
    return done.returncode == 0


def need(*command: str | Path, quiet: bool = False) -> None:
    """Run a command; exit if it fails."""
    if not run(*command, quiet=quiet):
        raise SystemExit(f"failed: {' '.join(map(str, command))}")


def build() -> tuple[Path, Path]:
    """Build both distributions afresh and return the paths of wheel and sdist."""
    tools = BUILD / "tools"
    if not (tools / "bin" / "pip").exists():
        venv.create(tools, with_pip=True)
        need(tools / "bin" / "pip", "install", "--quiet", "-c", "constraints.txt", "build")
    dist = BUILD / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    need(tools / "bin" / "python", "-m", "build", "--outdir", dist, quiet=True)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return wheel, sdist


def unpack(sdist: Path) -> Path:
    """Unpack the sdist, check what it holds, and return its folder."""
    folder = BUILD / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    missing = [name for name in IN_SDIST if not (unpacked / name).is_file()]
    if missing:
        raise SystemExit(
            f"{sdist.name}: {', '.join(missing)} missing, expected by tools/check_wheel.py; see MANIFEST.in"
        )
    return unpacked


def version_of(python: str) -> str | None:
    """Return the version of an interpreter, such as 3.11; None if it cannot be run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def install(python: str, version: str, wheel: Path) -> Path:
    """Install the wheel into an environment that is kept between runs, and return its folder."""
    folder = BUILD / f"python{version}"
    pip = folder / "bin" / "pip"
    if not pip.exists():
        need(python, "-m", "venv", folder)
    quiet = ("install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt")
    if version in WITH_TRAIN and run(pip, *quiet, f"{wheel}[train,render,plot,video]"):
        print(f"Python {version}: installed with [train]")
    else:
        why = "no torch of constraints.txt" if version in WITH_TRAIN else "the data side is what is checked"
        print(f"Python {version}: installed without [train]: {why}")
        need(pip, *quiet, f"{wheel}[render,plot]")
    # The version is the same from build to build, so pip would keep what it installed before.
    need(pip, "install", "--quiet", "--no-deps", "--force-reinstall", wheel)
    return folder


def main(pythons: list[str]) -> int:
    """Check the wheel with each interpreter; return how many failed."""
    wheel, sdist = build()
    source = unpack(sdist)
    print(f"built {wheel.name} and {sdist.name}")
    failed = checked = 0
    for python in pythons:
        version = version_of(python)
        if version is None:
            print(f"{python}: not on this machine, skipped")
            continue
        environment = install(python, version, wheel)
        empty = BUILD / f"walk-{version}"
        shutil.rmtree(empty, ignore_errors=True)
        path = f"PATH={environment / 'bin'}:/usr/bin:/bin"
        passed = run("env", path, "python", ROOT / "tools" / "walk_readme.py", source / "README.md", empty)
        print(f"Python {version}: {'passed' if passed else 'FAILED'}", flush=True)
        failed += not passed
        checked += 1
    if not checked:
        raise SystemExit("none of these interpreters is on this machine")
    return failed


if __name__ == "__main__":
    raise SystemExit(1 if main(sys.argv[1:] or [sys.executable]) else 0)
