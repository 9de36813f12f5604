"""Checkpoints that are cut, damaged, foreign or malicious; full disks; kills at every write."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_checkpoints import made, made_run, overwrite, same, smallest
from small_disks import PAGE, small_disk
from synthetic import Source, small

from gqn_data.errors import CheckpointError, DestinationError, NoSpace
from gqn_data.io import atomic
from gqn_model.checkpoint.checkpoint import (
    checkpoint_path,
    checkpoint_steps,
    load_checkpoint,
    save_checkpoint,
    write_config,
)
from gqn_model.train.run import resume_run
from gqn_model.train.trainer import train

SUPPORT = Path(__file__).resolve().parents[2] / "support"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path / "run", steps=(2, 4))


def _sum(run: Path, step: int) -> Path:
    path = checkpoint_path(run, step)
    return path.with_name(path.name + ".sha256")


def test_a_cut_checkpoint_is_refused_and_an_intact_one_named(run: Path, faults: Any) -> None:
    path = checkpoint_path(run, 4)
    raw = path.read_bytes()
    rng = random.Random(1)
    lengths = [0, 1, len(raw) - 1, *(rng.randrange(len(raw)) for _ in range(faults.tries(20)))]
    for length in lengths:
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"00000004\.pt: .*00000002\.pt .*--step 2\b"):
            load_checkpoint(run)
    assert load_checkpoint(run, 2).step == 2
    faults.record(
        "cut: checkpoint",
        holds="refused, and the last intact one named",
        tries=len(lengths),
        survived=len(lengths),
    )


def test_a_checkpoint_with_any_bit_flipped_is_refused(run: Path, faults: Any) -> None:
    path = checkpoint_path(run, 4)
    raw = path.read_bytes()
    rng = random.Random(2)
    tries = faults.tries(30)
    for _ in range(tries):
        bit = rng.randrange(8 * len(raw))
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"00000004\.pt: .*--step 2\b"):
            load_checkpoint(run)
    faults.record(
        "flipped bits: checkpoint", holds="refused, and the last intact one named", tries=tries, survived=tries
    )


def test_flipped_bits_with_a_matching_checksum_do_no_harm(run: Path, faults: Any) -> None:
    # Flip bits outside the tensors: in the pickled table at the head and the directory at the end.
    intact = load_checkpoint(run, 4)
    raw = checkpoint_path(run, 4).read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        table = next(part for part in archive.infolist() if part.filename.endswith("data.pkl"))
    end_of_table = table.header_offset + table.file_size + 200
    structure = [*range(table.header_offset, end_of_table), *range(len(raw) - 3000, len(raw))]
    rng = random.Random(3)
    tries, refused = faults.tries(30, full=300), 0
    for _ in range(tries):
        flipped = bytearray(raw)
        flipped[rng.choice(structure)] ^= 1 << rng.randrange(8)
        overwrite(run, 4, bytes(flipped))
        try:
            found = load_checkpoint(run, 4)
        except CheckpointError as error:
            refused += "\n" not in str(error)
        else:
            assert {name: value.shape for name, value in found.model.items()} == {
                name: value.shape for name, value in intact.model.items()
            }
    assert refused > tries / 4
    faults.record(
        "flipped bits: checkpoint with a matching checksum",
        holds="refused with a message, or the network that the configuration describes",
        tries=tries,
        survived=tries,
    )


def test_the_last_intact_checkpoint_is_named_if_several_are_damaged(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", steps=(2, 4, 6))
    for step in (4, 6):
        checkpoint_path(run, step).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"00000006\.pt: .*00000002\.pt .*--step 2\b"):
        load_checkpoint(run)
    checkpoint_path(run, 2).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"00000006\.pt: ") as error:
        load_checkpoint(run)
    assert "--step" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0" * 64, b"x" * 100_000])
def test_an_altered_checksum_file_is_refused(run: Path, content: bytes) -> None:
    _sum(run, 4).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"00000004\.pt: .*00000002\.pt .*--step 2\b"):
        load_checkpoint(run)


def test_a_checkpoint_without_a_checksum_file_is_ignored(run: Path) -> None:
    _sum(run, 4).unlink()
    assert load_checkpoint(run).step == 2


def test_a_checkpoint_of_another_model_is_refused(run: Path) -> None:
    write_config(run, smallest(hidden=3))
    with pytest.raises(CheckpointError, match=r"00000004\.pt: .*\bhidden=2\b.*\bhidden=3\b.*config\.json"):
        load_checkpoint(run)


def _rewrite(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the contents of the checkpoint of step 4 and update its checksum."""
    value = torch.load(checkpoint_path(run, 4), weights_only=True)
    file = io.BytesIO()
    torch.save(change(value) or value, file)
    overwrite(run, 4, file.getvalue())


def _remove(value: dict[str, Any]) -> None:
    del value["model"]["look.weight"]


def _add(value: dict[str, Any]) -> None:
    value["model"]["another\n.weight"] = torch.zeros(1)


def _reshape(value: dict[str, Any]) -> None:
    value["model"]["look.bias"] = torch.zeros(4)


def _integers(value: dict[str, Any]) -> None:
    value["model"]["look.bias"] = torch.zeros(3, dtype=torch.int32)


def _list(value: dict[str, Any]) -> None:
    value["model"]["look.bias"] = [0.0, 0.0, 0.0]


def _meta(value: dict[str, Any]) -> None:
    value["model"]["look.bias"] = torch.zeros(3, device="meta")


def _sparse(value: dict[str, Any]) -> None:
    value["model"]["look.bias"] = torch.zeros(3).to_sparse()


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (_remove, r"1 missing: look\.weight"),
        (_add, r"1 unexpected: another\.weight"),
        (_reshape, r"look\.bias \(float32 4, expected float32 3\)"),
        (_integers, r"look\.bias \(int32 3, expected float32 3\)"),
        (_list, r"look\.bias \(list\b"),
        (_meta, r"look\.bias \(Tensor\b"),
        (_sparse, r"look\.bias \(Tensor\b"),
    ],
)
def test_tensors_of_another_network_are_named_in_the_error(
    run: Path, change: Callable[[dict[str, Any]], None], pattern: str
) -> None:
    _rewrite(run, change)
    with pytest.raises(CheckpointError, match=rf"00000004\.pt: .*{pattern}"):
        load_checkpoint(run)


def test_many_wrong_tensors_are_counted_and_only_some_are_named(run: Path) -> None:
    def renamed(value: dict[str, Any]) -> None:
        value["model"] = {f"module.{name}": tensor for name, tensor in value["model"].items()}

    _rewrite(run, renamed)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(run)
    count = len(made(1).model)
    assert f"{count} missing: " in str(error.value)
    assert f"{count} unexpected: module." in str(error.value)
    assert len(str(error.value)) < 600


def _other_moments(value: dict[str, Any]) -> None:
    value["optimizer"]["state"][0]["exp_avg"] = torch.zeros(2, 2)


def _fewer_moments(value: dict[str, Any]) -> None:
    value["optimizer"]["param_groups"][0]["params"].pop()


def _no_moments(value: dict[str, Any]) -> None:
    value["optimizer"] = {}


@pytest.mark.parametrize(
    "options",
    [
        {"betas": None}, {"betas": (5.0, 5.0)}, {"eps": [1]}, {"eps": 10**400}, {"amsgrad": True},
        {"capturable": True}, {"weight_decay": float("nan")},
        {"betas": torch.zeros(2)},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_options_of_the_optimiser_are_refused(run: Path, options: dict[str, Any]) -> None:
    _rewrite(run, lambda value: value["optimizer"]["param_groups"][0].update(options))
    with pytest.raises(CheckpointError, match=r"00000004\.pt: .*optimiser"):
        load_checkpoint(run)


@pytest.mark.parametrize("change", [_other_moments, _fewer_moments, _no_moments])
def test_the_optimiser_state_of_another_network_is_refused(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    _rewrite(run, change)
    with pytest.raises(CheckpointError, match=r"00000004\.pt: .*\boptimiser\b"):
        load_checkpoint(run)


def _of_one(part: str, name: str, held: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of the state of the first parameter of a part: an entry, or all; or of all if `name` is `*`."""

    def change(value: dict[str, Any]) -> None:
        states = (value["optimizer"] if part == "adam" else value["optimizer"]["muon"])["state"]
        if name == "*":
            states.clear()
        elif name:
            states[0][name] = held
        elif held is None:
            del states[0]
        else:
            states[0] = held

    return change


@pytest.mark.parametrize(
    ("part", "name", "held"),
    [
        ("adam", "exp_avg", torch.zeros(())),  # torch's fused kernel wrote outside of it
        ("adam", "exp_avg_sq", torch.zeros(())),
        ("adam", "step", torch.zeros(48, 16)),
        ("adam", "step", torch.tensor(float("nan"))),
        ("adam", "more", torch.zeros(())),
        ("adam", "", {}),
        ("adam", "", None),
        ("adam", "*", None),
        ("muon", "momentum_buffer", torch.zeros(())),
        ("muon", "momentum_buffer", torch.full((48, 16), float("inf"))),
        ("muon", "more", torch.zeros(())),
        ("muon", "", {}),
        ("muon", "", None),
        ("muon", "*", None),
    ],
    ids=str,
)
def test_a_state_that_no_optimiser_writes_is_refused(part: str, name: str, held: Any, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", config=small(model="plane_sweep"))
    assert load_checkpoint(run).optimizer["muon"]["state"][0]["momentum_buffer"].shape == (48, 16)
    _rewrite(run, _of_one(part, name, held))
    with pytest.raises(CheckpointError, match=r"00000004\.pt: .*\boptimiser\b"):
        load_checkpoint(run)


@pytest.mark.parametrize("model", ["gqn", "plane_sweep"])
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(model: str, bad: float, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", config=small(model=model))
    name = list(load_checkpoint(run).model)[-1]

    def change(value: dict[str, Any]) -> None:
        value["model"][name].view(-1)[-1] = bad

    _rewrite(run, change)
    with pytest.raises(CheckpointError, match=rf"00000004\.pt: {re.escape(name)} holds NaN"):
        load_checkpoint(run)
    assert load_checkpoint(run, 2).step == 2


def _no_muon(value: dict[str, Any]) -> None:
    del value["optimizer"]["muon"]


def _other_momentum(value: dict[str, Any]) -> None:
    value["optimizer"]["muon"]["state"][0]["momentum_buffer"] = torch.zeros(2, 2)


def _steep_momentum(value: dict[str, Any]) -> None:
    value["optimizer"]["muon"]["param_groups"][0]["ns_coefficients"] = (9.0, 9.0, 9.0)


@pytest.mark.parametrize("change", [_no_muon, _other_momentum, _steep_momentum, _fewer_moments])
def test_another_state_of_muon_is_refused(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", config=small(model="plane_sweep"))
    assert load_checkpoint(run).optimizer["muon"]["state"]
    _rewrite(run, change)
    with pytest.raises(CheckpointError, match=r"00000004\.pt: .*\boptimiser\b"):
        load_checkpoint(run)


# Each value is possible, and their network has 60 billion parameters.
LARGE = {"hidden": 2048, "canvas": 2048, "core_steps": 100, "kernel": 5, "shared_cores": False}


@pytest.mark.parametrize("place", ["config.json", "checkpoint"])
def test_a_network_too_large_for_memory_is_refused_without_building_it(run: Path, place: str, faults: Any) -> None:
    if place == "checkpoint":
        _rewrite(run, lambda value: value["config"]["model"].update(LARGE))
    else:
        config = json.loads((run / "config.json").read_text())
        config["model"] |= LARGE
        (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json.*parameters|00000004\.pt: .*hidden=2048"):
        load_checkpoint(run)
    faults.record(
        "found in use: a network too large for any memory",
        holds="refused before a parameter is allocated",
        tries=1,
        survived=1,
    )


def test_a_tensor_expanded_to_petabytes_takes_no_memory(run: Path) -> None:
    def endless(value: dict[str, Any]) -> None:
        value["model"]["look.bias"] = torch.zeros(1).expand(10**15)

    _rewrite(run, endless)
    with pytest.raises(CheckpointError, match=r"look\.bias \(float32 1000000000000000\b"):
        load_checkpoint(run)


def _zeros_compressed(raw: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, bytes(64 << 20) if name.endswith("/data/0") else data)
    return file.getvalue()


def _one_member_compressed(raw: bytes) -> bytes:
    # The members take no more bytes than the file, but one is compressed.
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            kind = zipfile.ZIP_DEFLATED if name.endswith("/data/0") else zipfile.ZIP_STORED
            archive.writestr(name, data, compress_type=kind)
    return file.getvalue()


def _one_member_repeated(raw: bytes) -> bytes:
    # The directory at the end lists the same bytes 40 times.
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/0", bytes(1 << 20))
        first = archive.infolist()[0]
        for number in range(1, 40):
            again = copy.copy(first)
            again.filename = f"archive/data/{number}"
            archive.filelist.append(again)
    return file.getvalue()


@pytest.mark.parametrize(
    ("bomb", "pattern"),
    [
        (_zeros_compressed, r"\b\d{8} bytes"),
        (_one_member_compressed, "/data/0 is compressed"),
        (_one_member_repeated, r"\b\d{8} bytes"),
        (lambda _: b"PK\x05\x06" + bytes(18), ""),
        (lambda raw: raw[: len(raw) // 2] + bytes(22), ""),
    ],
)
def test_a_decompression_bomb_is_refused(run: Path, bomb: Callable[[bytes], bytes], pattern: str) -> None:
    overwrite(run, 4, bomb(checkpoint_path(run, 4).read_bytes()))
    with pytest.raises(CheckpointError, match=rf"00000004\.pt: .*{pattern}"):
        load_checkpoint(run)


class RunsCode:
    """Object that runs a command when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("field", ["model", "optimizer", "loader", "another"])
@pytest.mark.parametrize("function", ["system", "eval", "open", "popen"])
def test_a_checkpoint_that_would_run_code_is_refused(run: Path, tmp_path: Path, field: str, function: str) -> None:
    trace = tmp_path / "trace"
    call = {
        "system": (os.system, f"touch {trace}"),
        "eval": (eval, f"open({str(trace)!r}, 'w')"),
        "open": (open, str(trace), "w"),
        "popen": (subprocess.Popen, ["touch", str(trace)]),
    }[function]
    _rewrite(run, lambda value: value | {field: {"x": RunsCode(*call)}})
    with pytest.raises(CheckpointError, match=r"00000004\.pt: "):
        load_checkpoint(run)
    assert not trace.exists()


@pytest.mark.parametrize("value", [[], {"format": 2}, {"format": [2]}, {"format": float("nan")}, torch.zeros(3), 2])
def test_a_torch_file_that_is_not_a_checkpoint_is_refused(run: Path, value: Any) -> None:
    file = io.BytesIO()
    torch.save(value, file)
    overwrite(run, 4, file.getvalue())
    with pytest.raises(CheckpointError, match=r"00000004\.pt: "):
        load_checkpoint(run)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, faults: Any) -> None:
    tries = faults.tries(12)
    with small_disk(tmp_path / "disk") as disk:
        run = made_run(disk.folder / "run", steps=(2,))
        before = disk.used()
        needed = checkpoint_path(run, 2).stat().st_size
        checkpoint = made(4)
        for number in range(tries):
            disk.resize(before + needed * number // tries // PAGE * PAGE)
            with pytest.raises(NoSpace, match=r"00000004\.pt"):
                save_checkpoint(run, checkpoint, 3)
            assert checkpoint_steps(run) == [2]
            assert same(load_checkpoint(run), made(2))
            assert not list(run.rglob("*.partial"))
        disk.resize(64 << 20)
        save_checkpoint(run, checkpoint, 3)
        assert same(load_checkpoint(run), checkpoint)
    faults.record("full disk: checkpoint", holds="the previous checkpoint is kept", tries=tries, survived=tries)


def test_training_continues_after_a_checkpoint_that_did_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = smallest(steps=6, log_every=1, checkpoint_every=2, probe_every=0)
    with small_disk(tmp_path / "disk") as disk:
        run = made_run(disk.folder / "run", steps=(), config=config)

        class Resizing:
            """Logger that fills the disk before step 4 is saved, and frees it afterwards."""

            def log(self, record: Any) -> None:
                if record.step == 3:
                    disk.resize(disk.used() + PAGE)
                if record.step == 5:
                    disk.resize(64 << 20)

            def picture(self, step: int, image: object) -> None:
                """Do nothing."""

            def close(self) -> None:
                """Do nothing."""

        train(run, config, Source(config), loggers=[Resizing()])  # type: ignore[list-item]
        assert checkpoint_steps(run) == [0, 2, 6]
    assert re.search(r"warning: .*00000004\.pt", capsys.readouterr().err)


# For each file operation: fork a child that is killed at it, check the files, save the checkpoint again, and check
# again. Prints the number of operations.
_KILLED = """
import dataclasses, io, os, pathlib, shutil, signal, sys
sys.path[:0] = sys.argv[2:-1]
from made_checkpoints import made, made_run, prior, same, smallest
from gqn_model.checkpoint.best import read_best
from gqn_model.checkpoint.files import read_checked
from gqn_model.checkpoint.checkpoint import checkpoint_path, checkpoint_steps, load_checkpoint, save_checkpoint

folder = pathlib.Path(sys.argv[1])
last = int(sys.argv.pop())  # 6: a new step; 4: a repeated step with other weights
scores = {2: prior(15.0), 4: prior(14.0)}
states = {step: made(step, score=score) for step, score in scores.items()}

class Dying:
    def __init__(self, at):
        self.left = at
    def here(self):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

def arm(dying):
    class Raw(io.FileIO):
        def write(self, data):
            half = memoryview(data)[: len(data) // 2]
            if dying.left == 0:
                super().write(half)
            dying.here()
            return super().write(data)
    opened = io.open
    def opening(file, mode="r", buffering=-1, *rest, **options):
        if mode == "wb":
            return io.BufferedWriter(Raw(file, "w"), 16384)
        return opened(file, mode, buffering, *rest, **options)
    io.open = opening
    for name in ("fsync", "replace", "unlink", "open", "rename"):
        def dies(*arguments, _original=getattr(os, name), **options):
            dying.here()
            return _original(*arguments, **options)
        setattr(os, name, dies)

before = made_run(folder / "before", steps=())
for step in (2, 4):
    save_checkpoint(before, states[step], 2)
states[last] = dataclasses.replace(made(9), step=last, score=prior(18.0))
allowed = {6: ([2, 4], [2, 4, 6], [4, 6], [6]), 4: ([2, 4], [2], [4])}[last]
at = 0
while True:
    run = folder / str(at)
    shutil.copytree(before, run)
    child = os.fork()
    if child == 0:
        arm(Dying(at))
        save_checkpoint(run, states[last], 1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    steps = checkpoint_steps(run)
    assert steps in allowed, (at, steps)
    for step in steps:
        raw = read_checked(run, step, 1 << 30)
        old = checkpoint_path(before, step)
        if not old.exists() or raw != old.read_bytes():
            assert step == last and same(load_checkpoint(run, step), states[last]), (at, step)
    best = read_best(run)
    assert best.step in steps and best.step in (2, last), (at, best, steps)
    save_checkpoint(run, states[last], 1)
    names = sorted(path.name for path in run.rglob("*") if path.is_file())
    name = f"{last:08d}.pt"
    assert names == [name, name + ".sha256", "best.json", "config.json"], (at, names)
    assert same(load_checkpoint(run, "best"), states[last]), at
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, (at, status)
    at += 1
print(at)
"""


@pytest.mark.parametrize("step", [6, pytest.param(4, marks=pytest.mark.slow)])
def test_a_kill_at_any_write_leaves_only_complete_checkpoints(step: int, tmp_path: Path, faults: Any) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path), *sys.path, str(SUPPORT), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    operations = int(done.stdout)
    assert operations > 15
    faults.record(
        "killed: at every write of a checkpoint",
        holds="every checkpoint is complete, best.json names an existing one, and a rerun ends the same",
        tries=operations,
        survived=operations,
    )


_HOLDING = """
import sys, pathlib
from gqn_data.io import atomic
with atomic.exclusive_writer(pathlib.Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locked_run(run: Path) -> Iterator[Path]:
    """Yield a run that another process has locked, as a training does."""
    paths = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDING, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield run
        other.communicate(b"")
    assert other.returncode == 0


def test_a_run_that_another_process_trains_cannot_be_resumed(locked_run: Path, bars: Path) -> None:
    atomic.write_json(
        locked_run / "run.json", {"shards": str(bars), "scene_set": "", "fingerprint": "", "versions": {}}
    )
    before = {path: path.read_bytes() for path in locked_run.rglob("*") if path.is_file()}
    for step in (None, 2):
        with pytest.raises(DestinationError, match=re.escape(str(locked_run))):
            resume_run(locked_run, {}, step=step)
    assert {path: path.read_bytes() for path in locked_run.rglob("*") if path.is_file()} == before
