"""Progress on a terminal, in a log, and without a stderr."""

from __future__ import annotations

import io
import sys

import pytest
from tqdm import tqdm

from gqn_data import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _work(**options: object) -> None:
    with progress.bar(4000, "B", "checking", unit_scale=True, **options) as bar:
        for _ in range(4):
            bar.update(1000)
            bar.set_postfix_str("1/2 files", refresh=False)
            with bar.external_write_mode():
                progress.message("a message")


def test_a_log_gets_whole_lines_without_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    _work()
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("a message") == 4
    shown = [line for line in lines if line != "a message"]
    assert [line.split()[2] for line in shown] == [
        "0.00/4.00k",
        "1.00k/4.00k",
        "2.00k/4.00k",
        "3.00k/4.00k",
        "4.00k/4.00k",
    ]
    assert all(line.startswith("checking: ") and "\r" not in line and "|" not in line for line in shown)
    assert not tqdm._instances  # type: ignore[attr-defined]


def test_the_last_line_follows_earlier_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    bar = progress.bar(10, "scene", "writing")
    bar.mininterval = 1e9
    bar.update(10)
    bar.close()
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["0/10", "10/10"]


def test_quick_work_logs_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    _work()
    assert capsys.readouterr().err == "a message\n" * 4


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Terminal())
    _work()
    assert "\r" in sys.stderr.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [None, "gone"])
def test_without_a_usable_stderr_the_work_continues(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", None if stream is None else _Gone())
    _work()


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(text)
