"""The loggers: each gets every figure and picture, goes on with its curves, and fails without harm."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from processes import wait_until
from synthetic import Source, small, small_inputs

from gqn_data.errors import OptionError
from gqn_model import loggers
from gqn_model.checkpoints import load_checkpoint, write_config
from gqn_model.config import declarations, resolve
from gqn_model.loggers import LOGGERS, Guarded, Logger, Opening, Record, aside, chosen_loggers, open_loggers
from gqn_model.loggers.aside import Aside
from gqn_model.loggers.json_lines import JsonLines, read_lines
from gqn_model.loggers.terminal import Terminal, clock

CONFIG = resolve("tiny", (), {"logger": "none", "project": "bars"}).to_json()


@dataclasses.dataclass(frozen=True, kw_only=True)
class More(Record):
    """A record as it may be some day: with figures that no logger has heard of."""

    novelty: float | None = None
    memory: float | None = None


def record(step: int, **changes: Any) -> More:
    """Figures that tell which step and field they are of."""
    figures: dict[str, Any] = {
        "step": step,
        "steps": 6000,
        "rate": 7.5,
        "wait": 0.001,
        "loss": 1800.0 + step,
        "excess": 70.0 + step,
        "kl": 6.0,
        "kl_steps": (1.0, 2.0, 3.0),
        "mse": 0.01,
        "psnr": 20.0,
        "prior_sample": None if step % 200 else 17.0,
        "prior_mean": None if step % 200 else 18.0,
        "sigma": 1.5,
        "learning_rate": 1e-3,
        "left": 800.0,
        "gradient_norm": 123.456,
        "novelty": 0.25,
    }
    return More(**figures | changes)


def plain(step: int) -> Record:
    """The figures that a record has today: what crosses to another process is a `Record`."""
    return Record(**{one.name: getattr(record(step), one.name) for one in dataclasses.fields(Record)})


def picture(shade: int = 200) -> Image.Image:
    return Image.new("RGB", (12, 8), (shade, 0, 0))


# --- the terminal


def _table(width: int | None, *records: Record) -> list[str]:
    stream = io.StringIO()
    terminal = Terminal(stream, width)
    for one in records:
        terminal.log(one)
    terminal.close()
    return stream.getvalue().splitlines()


ASKED = ["step", "steps/s", "wait", "excess", "KL", "MSE", "PSNR", "prior", "left"]


@pytest.mark.parametrize(
    ("width", "more"),
    [
        (72, []),
        (80, ["sample"]),
        (100, ["sample", "sigma", "lr"]),
        (160, ["sample", "sigma", "lr", "loss", "gradient_norm", "novelty"]),
    ],
)
def test_the_table_fits_the_terminal_and_has_what_matters_at_any_width(width: int, more: list[str]) -> None:
    head, *lines = _table(width, record(100), record(200), record(123_456, left=3 * 86400.0, excess=12345.0))
    assert set(ASKED) <= set(head.split())
    assert set(head.split()) - set(ASKED) == set(more)
    assert {len(line) for line in [head, *lines]} == {len(head)}
    assert len(head) <= width
    assert head.split()[-1] == "left"


def test_figures_stand_below_their_names() -> None:
    head, line = _table(80, record(200))
    names, figures = head.split(), line.split()
    assert dict(zip(names, figures, strict=True)) == {
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
    for name, figure in zip(names, figures, strict=True):
        assert (
            head.index(f" {name}" if name != "step" else name) + len(name) <= line.index(f" {figure}") + len(figure) + 1
        )


def test_a_figure_that_was_not_measured_leaves_its_place_empty() -> None:
    _, line, whole = _table(80, record(100), record(200))
    assert len(line.split()) == len(whole.split()) - 2


def test_a_file_gets_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    head = _table(None, record(200, memory=2.5))[0].split()
    assert set(head) == {*ASKED, "loss", "sample", "sigma", "lr", "gradient_norm", "novelty", "memory"}


def test_a_terminal_is_asked_for_its_width_at_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_head_comes_again_every_twenty_lines() -> None:
    lines = _table(100, *(record(100 * k) for k in range(1, 42)))
    assert [place for place, line in enumerate(lines) if "excess" in line] == [0, 21, 42]


def test_figures_out_of_all_bounds_move_no_column() -> None:
    head, line = _table(100, record(100, excess=1.23e15, mse=1e20, kl=float("nan"), left=float("inf")))
    assert len(line) == len(head)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65, "1:05"), (7265, "2:01:05"), (3 * 86400 + 4 * 3600, "3d 04h")]
)
def test_a_span_of_time_is_told_as_people_read_it(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# --- JSON lines


def test_a_line_of_the_log_holds_every_field(tmp_path: Path) -> None:
    log = JsonLines(tmp_path, 0)
    log.log(record(200))
    log.close()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line) == {**dataclasses.asdict(record(200)), "kl_steps": [1.0, 2.0, 3.0]}


def test_the_log_is_json_whatever_the_figures(tmp_path: Path) -> None:
    log = JsonLines(tmp_path, 0)
    log.log(record(100, left=float("inf"), kl_steps=(1.0, float("nan"))))
    log.close()
    line = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["left"] is None
    assert line["kl_steps"] == [1.0, None]


@pytest.mark.parametrize("cut", [b'{"step": 30', b'{"step": 30}', b"\xff\xfe", b'{"other": 1}\n', b"[]\n"])
def test_a_log_that_was_cut_short_goes_on_with_whole_lines(tmp_path: Path, cut: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 10}\n{"step": 20}\n' + cut)
    assert [line["step"] for line in read_lines(tmp_path)] == [10, 20]
    log = JsonLines(tmp_path, 40)
    log.log(record(50))
    log.close()
    assert [line["step"] for line in read_lines(tmp_path)] == [10, 20, 50]
    assert len((tmp_path / "log.jsonl").read_bytes().splitlines()) == 3


def test_a_full_disk_is_told_once_and_the_training_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = JsonLines(tmp_path, 0)
    log._file.close()
    log._file = open("/dev/full", "w")  # noqa: PTH123, SIM115
    log.log(record(100))
    log.log(record(200))
    log.close()
    assert capsys.readouterr().err.count("training goes on") == 1


# --- the loggers that need a package: fakes with the calls of each package's documentation


class Fake:
    """What a service was given: a figure's points by name, the steps of pictures, configurations, runs begun."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.pictures: dict[int, tuple[int, int]] = {}
        self.configs: list[Any] = []
        self.begun: list[dict[str, Any]] = []
        self.ended = 0

    def take(self, name: str, step: float, value: float) -> None:
        self.points.setdefault(name, []).append((int(step), float(value)))

    def module(self) -> types.ModuleType:
        raise NotImplementedError


class FakeRuns(Fake):
    """W&B and trackio: `init` gives a run with `log(dict, step=)` and `finish()`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.unreachable = False

    def module(self) -> types.ModuleType:
        fake, module = self, types.ModuleType(self.name)

        class Picture:
            def __init__(self, value: Image.Image, caption: str | None = None) -> None:
                self.size = value.size

        class Run:
            def log(self, data: dict[str, Any], step: int | None = None) -> None:
                assert step is not None
                for name, value in data.items():
                    if isinstance(value, Picture):
                        fake.pictures[step] = value.size
                    else:
                        fake.take(name, step, value)

            def finish(self) -> None:
                fake.ended += 1

        def init(**options: Any) -> Run:
            fake.begun.append(options)
            if fake.unreachable and options.get("mode") != "offline":
                raise TimeoutError("no answer\nand much more")
            fake.configs.append(options["config"])
            return Run()

        module.init, module.Image, module.Settings = init, Picture, lambda **options: options  # type: ignore[attr-defined]
        module.teardown = lambda: None  # type: ignore[attr-defined]
        return module


class FakeVisdom(Fake):
    """A Visdom server behind the package's client: windows by name."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: set[str] = set()
        self.away = False

    def lose_everything(self) -> None:
        """As where the server is started anew."""
        self.windows.clear()
        self.points.clear()

    def module(self) -> types.ModuleType:
        fake, module = self, types.ModuleType("visdom")

        class Visdom:
            def __init__(self, **options: Any) -> None:
                self._answer()
                fake.begun.append(options)
                self.server, self.port = options["server"], options["port"]

            def _answer(self) -> None:
                if fake.away:
                    raise ConnectionError("no Visdom server there")

            def win_exists(self, win: str) -> bool:
                self._answer()
                return win in fake.windows

            def text(self, text: str, win: str, opts: Any) -> None:
                self._answer()
                fake.windows.add(win)
                fake.configs.append(text)

            def line(self, Y: Any, X: Any, win: str, opts: Any, update: str | None) -> None:  # noqa: N803
                self._answer()
                assert Y.shape[0] == X.shape[0]
                for place, name in enumerate(opts.get("legend") or [win]):
                    if update is None:
                        fake.points.pop(name, None)
                    values = Y[:, place] if Y.ndim == 2 else Y
                    for step, value in zip(X, values, strict=True):
                        fake.take(name, step, value)
                fake.windows.add(win)

            def image(self, img: Any, win: str, opts: Any) -> None:
                self._answer()
                fake.windows.add(win)
                fake.pictures[int(opts["caption"].split()[1])] = (img.shape[2], img.shape[1])

        module.Visdom = Visdom  # type: ignore[attr-defined]
        return module


class TensorBoardFiles(Fake):
    """TensorBoard itself: what it reads from the files of the run."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run

    def read(self) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(self.run / "tensorboard"))
        found.Reload()
        for name in found.Tags()["scalars"]:
            self.points[name] = [(event.step, event.value) for event in found.Scalars(name)]
        for event in found.Images("predictions") if "predictions" in found.Tags()["images"] else []:
            self.pictures[event.step] = (event.width, event.height)
        self.configs = [event.tensor_proto.string_val for event in found.Tensors("config/text_summary")]
        self.ended = 1


@pytest.fixture
def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A stand-in for the package of the logger that the test is called with; TensorBoard itself."""
    name = request.param
    if name == "tensorboard":
        pytest.importorskip("tensorboard")
        return TensorBoardFiles(tmp_path)
    fake: Fake = FakeVisdom() if name == "visdom" else FakeRuns(name)
    monkeypatch.setitem(sys.modules, name, fake.module())
    return fake


def _opened(name: str, run: Path, start: int = 0, config: Any = CONFIG) -> Logger:
    module, _, attribute = LOGGERS[name].maker.partition(":")
    __import__(module)
    maker = getattr(sys.modules[module], attribute)
    opened: Logger = maker(Opening(run=run, start=start, config=config))
    return opened


def _watched(name: str, run: Path, steps: list[int], start: int = 0) -> None:
    """A training as the logger sees it: lines of the log come first, then figures and pictures."""
    lines, logger = JsonLines(run, start), _opened(name, run, start)
    for step in steps:
        for one in (lines, logger):
            one.log(record(step))
        logger.picture(step, picture())
    lines.close()
    logger.close()


ALL = [pytest.param(name, name, id=name) for name in LOGGERS]


def _expected(steps: list[int]) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for step in steps:
        for name, value in dataclasses.asdict(record(step)).items():
            if name in ("step", "steps") or value is None:
                continue
            parts = [(f"{name}/{k:02d}", part) for k, part in enumerate(value)] if isinstance(value, tuple) else None
            for label, figure in parts or [(name, value)]:
                points.setdefault(label, []).append((step, pytest.approx(figure)))
    return points


@pytest.mark.parametrize(("name", "service"), ALL, indirect=["service"])
def test_every_logger_gets_every_figure_every_picture_and_the_settings_once(
    name: str, service: Fake, tmp_path: Path
) -> None:
    _watched(name, tmp_path, [100, 200])
    if isinstance(service, TensorBoardFiles):
        service.read()
    assert service.points == _expected([100, 200])
    assert service.pictures == {100: (12, 8), 200: (12, 8)}
    assert len(service.configs) == 1
    assert "learning_rate_end" in str(service.configs[0])
    assert service.ended == (0 if name == "visdom" else 1)


@pytest.mark.parametrize(("name", "service"), ALL, indirect=["service"])
def test_a_training_that_goes_on_goes_on_with_its_curves(name: str, service: Fake, tmp_path: Path) -> None:
    # Killed after step 400, and gone on with from the checkpoint of step 200.
    _watched(name, tmp_path, [100, 200, 300, 400])
    _watched(name, tmp_path, [300, 400, 500], start=200)
    if isinstance(service, TensorBoardFiles):
        service.read()
    assert service.points == _expected([100, 200, 300, 400, 500])
    if name in ("wandb", "trackio"):
        first, second = service.begun
        assert first["resume"] == second["resume"] == "allow"
        assert first["project"] == "bars"
        assert first["name"] == second["name"]
        assert first.get("id") == second.get("id")


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_two_runs_are_two_runs_at_the_service(service: Fake, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "run").mkdir(parents=True)
        _watched("wandb", tmp_path / parent / "run", [100])
    assert service.begun[0]["id"] != service.begun[1]["id"]


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_a_service_that_cannot_be_reached_makes_the_run_an_offline_one(
    service: FakeRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.unreachable = True
    _watched("wandb", tmp_path, [100])
    assert [options.get("mode") for options in service.begun] == [None, "offline"]
    assert "no answer; the run is written to" in capsys.readouterr().err
    assert service.points == _expected([100])


@pytest.mark.parametrize("damage", [b"", b"{", b'{"id": 1}', b"[]"])
@pytest.mark.parametrize("service", ["trackio"], indirect=True)
def test_a_damaged_note_of_the_service_begins_another_run_there(service: Fake, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "trackio.json").write_bytes(damage)
    _watched("trackio", tmp_path, [100])
    assert service.points == _expected([100])


@pytest.mark.parametrize("service", ["visdom"], indirect=True)
def test_a_visdom_server_that_was_started_anew_is_drawn_everything(service: FakeVisdom, tmp_path: Path) -> None:
    lines, logger = JsonLines(tmp_path, 0), _opened("visdom", tmp_path)
    for step in (100, 200, 300):
        if step == 300:
            service.lose_everything()
        for one in (lines, logger):
            one.log(record(step))
    lines.close()
    assert service.points == _expected([100, 200, 300])


@pytest.mark.parametrize("service", ["visdom"], indirect=True)
def test_a_visdom_server_that_was_away_is_drawn_everything_and_the_newest_picture(
    service: FakeVisdom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aside, "PAUSE", 0.0)
    lines = JsonLines(tmp_path, 0)
    opening = Opening(run=tmp_path, start=0, config=CONFIG)
    receiver = aside._Receiver("visdom", LOGGERS["visdom"].maker, opening)
    (tmp_path / "pictures").mkdir()
    receiver.take({"begin": True})
    for step in (100, 200, 300, 400):
        service.away = step in (200, 300)
        if service.away:
            service.lose_everything()
        lines.log(plain(step))
        receiver.take({"record": dataclasses.asdict(plain(step))})
        picture().save(tmp_path / "pictures" / f"{step:08d}.png")
        receiver.take({"picture": step, "image": aside._to_text(picture())})
    lines.close()
    expected = _expected([100, 200, 300, 400])
    del expected["novelty"]
    assert service.points == expected
    assert 300 in service.pictures
    assert capsys.readouterr().err.count("no Visdom server there (training goes on") == 1


@pytest.mark.parametrize("service", ["visdom"], indirect=True)
@pytest.mark.parametrize(("given", "found"), [("", "run-1"), ("my env/1", "my-env-1")])
def test_the_visdom_environment_is_the_runs_name_or_the_one_given(
    service: FakeVisdom, tmp_path: Path, given: str, found: str
) -> None:
    config = resolve("tiny", (), {"visdom_env": given, "visdom_server": "gpu7", "visdom_port": 9000}).to_json()
    (tmp_path / "run-1").mkdir()
    _opened("visdom", tmp_path / "run-1", config=config)
    (options,) = service.begun
    assert (options["env"], options["server"], options["port"]) == (found, "gpu7", 9000)


@pytest.fixture
def black_hole() -> Iterator[int]:
    """The port of a server that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_visdom_server_that_never_answers_is_left_in_time(black_hole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    from gqn_model.loggers import visdom

    class Client:
        session = requests.Session()

    monkeypatch.setattr(visdom, "TIMEOUT", (0.2, 0.2))
    with Client.session, pytest.raises(requests.Timeout):
        visdom._with_timeouts(Client)()._handle_post(f"http://127.0.0.1:{black_hole}/events", "{}")


# --- a process of its own

_MADE = """
import os, sys, time
from pathlib import Path


class Keeps:
    def __init__(self, opening):
        self.path = Path(opening.run) / "kept"
        self.add(f"opened {opening.start} {opening.config['training']['project']}")

    def add(self, text):
        with self.path.open("a") as file:
            file.write(text + "\\n")

    def log(self, record):
        print("chatter")
        self.add(f"line {record.step} {record.kl_steps} {record.prior_mean}")

    def picture(self, step, image):
        self.add(f"picture {step} {image.size} {image.getpixel((3, 3))}")

    def close(self):
        self.add("closed")


class Asks(Keeps):
    def log(self, record):
        self.add(repr(sys.stdin.read()))


class FailsAtOnce(Keeps):
    def __init__(self, opening):
        raise OSError("no way\\nin the world")


class FailsLater(Keeps):
    def log(self, record):
        raise ValueError("cannot draw that")


class Dies(Keeps):
    def log(self, record):
        os._exit(3)


class Hangs(Keeps):
    def log(self, record):
        time.sleep(3600)


class HangsAtOnce(Keeps):
    def __init__(self, opening):
        time.sleep(3600)


class HangsAtTheEnd(Keeps):
    def close(self):
        time.sleep(3600)
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder; loggers that misbehave can be imported from `made_loggers`."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "made_loggers.py").write_text(_MADE)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def _aside(kind: str, run: Path, patience: float = 60.0) -> Aside:
    return Aside("made", f"made_loggers:{kind}", Opening(run=run, start=7, config=CONFIG), patience=patience)


def test_a_logger_in_a_process_of_its_own_gets_everything_in_order(
    made: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = _aside("Keeps", made)
    logger.log(plain(100))
    logger.picture(100, picture(150))
    logger.log(plain(200))
    logger.close()
    assert (made / "kept").read_text().splitlines() == [
        "opened 7 bars",
        "line 100 (1.0, 2.0, 3.0) None",
        "picture 100 (12, 8) (150, 0, 0)",
        "line 200 (1.0, 2.0, 3.0) 18.0",
        "closed",
    ]
    out, err = capfd.readouterr()
    assert out == ""  # results go there, and nothing else
    assert err == "chatter\nchatter\n"


def test_a_logger_that_asks_a_question_gets_no_answer_and_does_not_wait(made: Path) -> None:
    logger = _aside("Asks", made)
    logger.log(plain(100))
    logger.close()
    assert (made / "kept").read_text().splitlines()[1] == "''"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("FailsAtOnce", "made: no way (training goes on"),
        ("FailsLater", "made: cannot draw that (training goes on"),
        ("Dies", "made: ended before the training"),
    ],
)
def test_a_logger_that_fails_is_told_once_and_harms_nothing(
    made: Path, capfd: pytest.CaptureFixture[str], kind: str, words: str
) -> None:
    logger = _aside(kind, made)
    for step in (100, 200, 300):
        logger.log(plain(step))
        logger.picture(step, picture())
        if kind == "Dies":
            logger._process.wait(60)
    logger.close()
    err = capfd.readouterr().err
    assert err.count("warning: ") == 1
    assert words in err


@pytest.mark.parametrize("kind", ["Hangs", "HangsAtOnce", "HangsAtTheEnd"])
def test_a_logger_that_hangs_is_ended_and_told_of(made: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    logger = _aside(kind, made, patience=0.3)
    logger.log(plain(100))
    logger.close()
    assert logger._process.returncode == -signal.SIGKILL
    assert not logger._feeder.is_alive()
    assert "did not take everything within 0.3 s" in capfd.readouterr().err


def test_a_logger_that_does_not_keep_up_loses_lines_and_the_training_does_not_wait(
    made: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = _aside("HangsAtOnce", made, patience=0.1)
    # More than the queue and the pipe hold together: this would never end if it waited.
    noise = Image.frombytes("RGB", (200, 200), os.urandom(200 * 200 * 3))
    for step in range(200):
        logger.picture(step, noise)
    logger.close()
    err = capfd.readouterr().err
    assert err.count("warning: ") == 1
    assert "does not keep up" in err


def test_a_logger_ends_with_the_training_that_is_killed_and_not_with_its_terminal(made: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from gqn_model.loggers import Opening\n"
        "from gqn_model.loggers.aside import Aside\n"
        "opening = Opening(run=Path(sys.argv[1]), start=7, config={'training': {'project': 'bars'}})\n"
        "logger = Aside('made', 'made_loggers:Keeps', opening)\n"
        "print(logger._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    training = subprocess.Popen([sys.executable, "-c", code, str(made)], stdout=subprocess.PIPE, env=path)
    assert training.stdout is not None
    with training, training.stdout:
        logger = int(training.stdout.readline())
        wait_until((made / "kept").exists)
        os.kill(logger, signal.SIGINT)
        os.kill(logger, signal.SIGTERM)
        assert os.getsid(logger) != os.getsid(training.pid)
        training.kill()
        training.wait(60)
    wait_until(lambda: "closed" in (made / "kept").read_text())


def test_a_logger_that_failed_is_opened_anew_after_a_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    receiver = aside._Receiver("made", "made_loggers:FailsLater", Opening(run=made, config=CONFIG))
    line = {"record": dataclasses.asdict(plain(100))}
    receiver.take(line)
    receiver.take(line)  # too soon
    assert (made / "kept").read_text().count("opened") == 1
    monkeypatch.setattr(aside, "PAUSE", 0.0)
    receiver._rests_until = 0.0
    receiver.take(line)
    receiver.take(line)
    assert (made / "kept").read_text().count("opened") == 3


def test_a_logger_in_this_process_that_fails_is_told_once_and_harms_nothing(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("FailsAtOnce", "FailsLater"):
        logger = Guarded("made", f"made_loggers:{kind}", Opening(run=made, config=CONFIG))
        for step in (100, 200):
            logger.log(plain(step))
        logger.close()
        assert capsys.readouterr().err.count("warning: made: ") == 1


def test_loggers_that_hang_or_fail_change_no_weight(made: Path) -> None:
    config = small(steps=6, log_every=2, picture_every=3, probe_every=3)
    hashes = []
    for name in ("plain", "watched"):
        from gqn_model.training import train

        run = made / name
        run.mkdir()
        write_config(run, config)
        watching = [_aside("Hangs", run, 0.1), _aside("Dies", run), _aside("Keeps", run)] if name == "watched" else []
        train(run, config, Source(config), loggers=watching, probe=small_inputs(config))
        for logger in watching:
            logger.close()
        hashes.append({name: value.numpy().tobytes() for name, value in load_checkpoint(run).model.items()})
    assert hashes[0] == hashes[1]
    kept = (made / "watched" / "kept").read_text()
    assert [kept.count(word) for word in ("line 2 ", "line 4 ", "line 6 ", "picture 3 ", "picture 6 ")] == [1] * 5


# --- which loggers


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, and no other that a logger needs."""
    folder = tmp_path / "packages"
    folder.mkdir()
    found = loggers.importlib.util.find_spec

    def here_alone(name: str) -> Any:
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [str(folder)]) if name in LOGGERS else found(name)

    monkeypatch.setattr(loggers.importlib.util, "find_spec", here_alone)
    return folder


def _install(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()


def test_auto_takes_what_needs_neither_server_nor_account(packages: Path) -> None:
    assert chosen_loggers("auto") == []
    _install(packages, *LOGGERS)
    assert chosen_loggers("auto") == ["tensorboard"]
    assert chosen_loggers("auto,visdom") == ["tensorboard", "visdom"]
    assert chosen_loggers("wandb,trackio") == ["wandb", "trackio"]
    assert chosen_loggers("none") == []


def test_a_machine_without_room_for_another_process_trains_without_the_logger(
    packages: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_process(*arguments: Any, **options: Any) -> None:
        raise BlockingIOError("no process to be had")

    _install(packages, "visdom")
    monkeypatch.setattr(aside.subprocess, "Popen", no_process)
    (only,) = open_loggers("visdom", packages, 0, quiet=True)
    only.close()
    assert "visdom: no process to be had (training goes on)" in capsys.readouterr().err


@pytest.mark.parametrize("name", LOGGERS)
def test_a_logger_whose_package_is_absent_says_what_to_type(packages: Path, name: str) -> None:
    with pytest.raises(OptionError, match=rf"'{name}', but the package {name} is not installed; type `pip install"):
        open_loggers(f"auto,{name}", packages, 0)
    assert list(packages.iterdir()) == []


def test_a_folder_called_like_a_package_is_none(packages: Path) -> None:
    (packages / "wandb").mkdir()  # as W&B itself leaves beside a script
    with pytest.raises(OptionError, match="not installed"):
        chosen_loggers("wandb")


@pytest.mark.parametrize("value", ["tensorbord", "auto,tensorbord", "auto,,none", ""])
def test_an_unknown_logger_says_what_is_possible(value: str) -> None:
    for ask in (chosen_loggers, lambda names: resolve("tiny", (), {"logger": names})):
        with pytest.raises(OptionError, match="possible: auto, none, tensorboard, visdom, wandb, trackio"):
            ask(value)


def test_the_configuration_names_every_logger() -> None:
    (one,) = (one for one in declarations() if one.name == "logger")
    assert one.choices == ("auto", "none", *LOGGERS)


def test_terminal_and_json_lines_are_always_there(tmp_path: Path) -> None:
    opened = open_loggers("none", tmp_path, 0)
    assert [type(one).__name__ for one in opened] == ["Terminal", "JsonLines"]
    opened[1].close()
    (only,) = open_loggers("none", tmp_path, 0, quiet=True)
    only.close()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["-v"], "auto,visdom"),
        (["-v", "--logger", "wandb"], "wandb,visdom"),
        (["--logger", "wandb,trackio"], "wandb,trackio"),
    ],
)
def test_v_is_visdom_beside_what_else_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: list[str], names: str
) -> None:
    from cli import gqn
    from gqn_model import runs

    seen = []

    def start_run(shards: str, config: Any, **rest: Any) -> Path:
        seen.append(config.training.logger)
        return Path("run")

    monkeypatch.setattr(runs, "start_run", start_run)
    done = CliRunner().invoke(gqn, ["train", "--shards", "x", "--preset", "tiny", *options])
    assert done.exit_code == 0, done.output
    assert seen == [names]


def test_help_imports_no_package_of_a_logger() -> None:
    code = (
        "import sys\n"
        "from cli import gqn\n"
        "try:\n    gqn(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'numpy', 'PIL', 'tensorboard', 'visdom', 'wandb', 'trackio'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
