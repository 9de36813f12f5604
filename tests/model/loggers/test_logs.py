"""The loggers that are always on: the table in the terminal and the lines of JSON."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from made_records import record

from gqn_model.loggers import Record
from gqn_model.loggers.json_lines import JsonLines, read_lines
from gqn_model.loggers.terminal import Terminal, clock


def _table(width: int | None, *records: Record) -> list[str]:
    stream = io.StringIO()
    terminal = Terminal(stream, width)
    for one in records:
        terminal.log(one)
    terminal.close()
    return stream.getvalue().splitlines()


MAIN_COLUMNS = ["step", "steps/s", "wait", "excess", "KL", "MSE", "PSNR", "prior", "left"]


@pytest.mark.parametrize(
    ("width", "more"),
    [
        (72, []),
        (80, ["sample"]),
        (100, ["sample", "sigma", "lr"]),
        (160, ["sample", "sigma", "lr", "loss", "gradient_norm", "novelty"]),
    ],
)
def test_the_table_fits_the_terminal_and_always_has_main_columns(width: int, more: list[str]) -> None:
    head, *lines = _table(width, record(100), record(200), record(123_456, left=3 * 86400.0, excess=12345.0))
    assert set(MAIN_COLUMNS) <= set(head.split())
    assert set(head.split()) - set(MAIN_COLUMNS) == set(more)
    assert {len(line) for line in [head, *lines]} == {len(head)}
    assert len(head) <= width
    assert head.split()[-1] == "left"


def test_values_stand_below_their_names() -> None:
    head, line = _table(80, record(200))
    names, values = head.split(), line.split()
    assert dict(zip(names, values, strict=True)) == {
        "step": "200",
        "steps/s": "7.50",
        "wait": "0.1%",
        "excess": "270.00",
        "KL": "6.00",
        "MSE": "0.01000",
        "PSNR": "20.00",
        "prior": "18.00",
        "sample": "17.00",
        "left": "13:20",
    }
    for name, value in zip(names, values, strict=True):
        assert (
            head.index(f" {name}" if name != "step" else name) + len(name) <= line.index(f" {value}") + len(value) + 1
        )


def test_a_metric_that_was_not_measured_leaves_its_cell_empty() -> None:
    _, line, whole = _table(80, record(100), record(200))
    assert len(line.split()) == len(whole.split()) - 2


def test_a_file_gets_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    head = _table(None, record(200, memory=2.5))[0].split()
    assert set(head) == {*MAIN_COLUMNS, "loss", "sample", "sigma", "lr", "gradient_norm", "novelty", "memory"}


def test_the_table_follows_a_change_of_the_terminals_width(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Tty()
    terminal = Terminal(stream)
    monkeypatch.setenv("COLUMNS", "80")
    terminal.log(record(100))
    monkeypatch.setenv("COLUMNS", "160")
    terminal.log(record(200))
    narrow, _, wide, _ = stream.getvalue().splitlines()
    assert len(narrow) <= 80 < len(wide)


def test_the_head_is_repeated_every_twenty_lines() -> None:
    lines = _table(100, *(record(100 * k) for k in range(1, 42)))
    assert [number for number, line in enumerate(lines) if "excess" in line] == [0, 21, 42]


def test_huge_values_do_not_shift_columns() -> None:
    head, line = _table(100, record(100, excess=1.23e15, mse=1e20, kl=float("nan"), left=float("inf")))
    assert len(line) == len(head)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65, "1:05"), (7265, "2:01:05"), (3 * 86400 + 4 * 3600, "3d 04h")]
)
def test_durations_are_formatted_to_read(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_line_of_the_log_holds_every_field(tmp_path: Path) -> None:
    log = JsonLines(tmp_path, 0)
    log.log(record(200))
    log.close()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line) == {**dataclasses.asdict(record(200)), "kl_steps": [1.0, 2.0, 3.0]}


def test_the_log_writes_null_for_nan_and_infinity(tmp_path: Path) -> None:
    log = JsonLines(tmp_path, 0)
    log.log(record(100, left=float("inf"), kl_steps=(1.0, float("nan"))))
    log.close()
    line = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["left"] is None
    assert line["kl_steps"] == [1.0, None]


@pytest.mark.parametrize("cut", [b'{"step": 30', b'{"step": 30}', b"\xff\xfe", b'{"other": 1}\n', b"[]\n"])
def test_a_log_that_was_cut_short_continues_with_complete_lines(tmp_path: Path, cut: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 10}\n{"step": 20}\n' + cut)
    assert [line["step"] for line in read_lines(tmp_path)] == [10, 20]
    log = JsonLines(tmp_path, 40)
    log.log(record(50))
    log.close()
    assert [line["step"] for line in read_lines(tmp_path)] == [10, 20, 50]
    assert len((tmp_path / "log.jsonl").read_bytes().splitlines()) == 3


def test_a_full_disk_causes_one_warning_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = JsonLines(tmp_path, 0)
    log._file.close()
    log._file = open("/dev/full", "w")  # noqa: PTH123, SIM115
    log.log(record(100))
    log.log(record(200))
    log.close()
    assert capsys.readouterr().err.count("training continues") == 1
