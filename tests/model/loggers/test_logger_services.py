"""Loggers that need a package, against fakes: every metric and picture, and curves of resumed runs."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_records import CONFIG, picture, plain, record
from PIL import Image

from gqn_model.config import resolve
from gqn_model.loggers import LOGGERS, Logger, LoggerContext, subprocess_logger
from gqn_model.loggers.json_lines import JsonLines


class Fake:
    """What a service received: points by metric, pictures by step, configurations, and options of runs begun."""

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
    """W&B and trackio: `init` returns a run with `log(dict, step=)` and `finish()`."""

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
                raise TimeoutError("no answer\nand more")
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
        """Forget everything, as a restarted server does."""
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
    """TensorBoard itself, reading the files of the run."""

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
    """Replace the package of the parametrised logger by a fake; TensorBoard is used itself."""
    name = request.param
    if name == "tensorboard":
        pytest.importorskip("tensorboard")
        return TensorBoardFiles(tmp_path)
    fake: Fake = FakeVisdom() if name == "visdom" else FakeRuns(name)
    monkeypatch.setitem(sys.modules, name, fake.module())
    return fake


def _opened(name: str, run: Path, start: int = 0, config: Any = CONFIG) -> Logger:
    module, _, attribute = LOGGERS[name].factory.partition(":")
    __import__(module)
    factory = getattr(sys.modules[module], attribute)
    opened: Logger = factory(LoggerContext(run=run, start=start, config=config))
    return opened


def _watched(name: str, run: Path, steps: list[int], start: int = 0) -> None:
    """Log like a training: each line first to `log.jsonl`, then to the logger, then the picture."""
    lines, logger = JsonLines(run, start), _opened(name, run, start)
    for step in steps:
        for one in (lines, logger):
            one.log(record(step))
        logger.picture(step, picture())
    lines.close()
    logger.close()


# The viewer shows checkpoints: tests/model/viewer/test_live.py.
ALL = [pytest.param(name, name, id=name) for name in LOGGERS if name != "viewer"]


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
def test_every_logger_gets_all_metrics_pictures_and_settings_once(name: str, service: Fake, tmp_path: Path) -> None:
    _watched(name, tmp_path, [100, 200])
    if isinstance(service, TensorBoardFiles):
        service.read()
    assert service.points == _expected([100, 200])
    assert service.pictures == {100: (12, 8), 200: (12, 8)}
    assert len(service.configs) == 1
    assert "learning_rate_end" in str(service.configs[0])
    assert service.ended == (0 if name == "visdom" else 1)


@pytest.mark.parametrize(("name", "service"), ALL, indirect=["service"])
def test_a_resumed_training_continues_its_curves(name: str, service: Fake, tmp_path: Path) -> None:
    # Killed after step 400, resumed from the checkpoint of step 200.
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
def test_two_runs_with_equal_folder_names_differ_at_the_service(service: Fake, tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "run").mkdir(parents=True)
        _watched("wandb", tmp_path / parent / "run", [100])
    assert service.begun[0]["id"] != service.begun[1]["id"]


@pytest.mark.parametrize("service", ["wandb"], indirect=True)
def test_wandb_begins_offline_if_the_service_is_unreachable(
    service: FakeRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.unreachable = True
    _watched("wandb", tmp_path, [100])
    assert [options.get("mode") for options in service.begun] == [None, "offline"]
    err = capsys.readouterr().err
    assert re.fullmatch(rf"warning: wandb: no answer; .*{tmp_path}/wandb, .*`wandb sync` \(training continues\)\n", err)
    assert service.points == _expected([100])


@pytest.mark.parametrize(("name", "service"), ALL[2:], indirect=["service"])
def test_the_note_holds_the_id_and_the_last_step_that_was_sent(name: str, service: Fake, tmp_path: Path) -> None:
    _watched(name, tmp_path, [100, 200])
    data = (tmp_path / f"{name}.json").read_bytes()
    identity = json.loads(data)["id"]
    assert re.fullmatch("[0-9a-f]{8}", identity)
    assert data == b'{\n  "id": "%s",\n  "step": 200\n}\n' % identity.encode()
    assert identity in str(service.begun[0].get("id", service.begun[0]["name"]))


@pytest.mark.parametrize("damage", [b"", b"{", b'{"id": 1}', b"[]"])
@pytest.mark.parametrize("service", ["trackio"], indirect=True)
def test_a_damaged_note_begins_another_run_at_the_service(service: Fake, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "trackio.json").write_bytes(damage)
    _watched("trackio", tmp_path, [100])
    assert service.points == _expected([100])


@pytest.mark.parametrize("service", ["visdom"], indirect=True)
def test_a_restarted_visdom_server_shows_everything_again(service: FakeVisdom, tmp_path: Path) -> None:
    lines, logger = JsonLines(tmp_path, 0), _opened("visdom", tmp_path)
    for step in (100, 200, 300):
        if step == 300:
            service.lose_everything()
        for one in (lines, logger):
            one.log(record(step))
    lines.close()
    assert service.points == _expected([100, 200, 300])


@pytest.mark.parametrize("service", ["visdom"], indirect=True)
def test_a_missing_visdom_server_shows_everything_once_it_is_back(
    service: FakeVisdom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess_logger, "RETRY_AFTER", 0.0)
    lines = JsonLines(tmp_path, 0)
    context = LoggerContext(run=tmp_path, start=0, config=CONFIG)
    receiver = subprocess_logger._Receiver("visdom", LOGGERS["visdom"].factory, context)
    (tmp_path / "pictures").mkdir()
    receiver.handle({"begin": True})
    for step in (100, 200, 300, 400):
        service.away = step in (200, 300)
        if service.away:
            service.lose_everything()
        lines.log(plain(step))
        receiver.handle({"record": dataclasses.asdict(plain(step))})
        picture().save(tmp_path / "pictures" / f"{step:08d}.png")
        receiver.handle({"picture": step, "image": subprocess_logger._encode(picture())})
    lines.close()
    expected = _expected([100, 200, 300, 400])
    del expected["novelty"]
    assert service.points == expected
    assert 300 in service.pictures
    assert capsys.readouterr().err.count("warning: visdom: no Visdom server there") == 1


@pytest.mark.parametrize("service", ["visdom"], indirect=True)
@pytest.mark.parametrize(("given", "found"), [("", "run-1"), ("my env/1", "my-env-1")])
def test_the_visdom_environment_is_the_runs_name_or_the_setting(
    service: FakeVisdom, tmp_path: Path, given: str, found: str
) -> None:
    config = resolve("tiny", (), {"visdom_env": given, "visdom_server": "gpu7", "visdom_port": 9000}).to_json()
    (tmp_path / "run-1").mkdir()
    _opened("visdom", tmp_path / "run-1", config=config)
    (options,) = service.begun
    assert (options["env"], options["server"], options["port"]) == (found, "gpu7", 9000)


@pytest.fixture
def black_hole() -> Iterator[int]:
    """Return the port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_visdom_server_that_never_answers_causes_a_timeout(black_hole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    from gqn_model.loggers import visdom

    class Client:
        session = requests.Session()

    monkeypatch.setattr(visdom, "TIMEOUT", (0.2, 0.2))
    with Client.session, pytest.raises(requests.Timeout):
        visdom._with_timeouts(Client)()._handle_post(f"http://127.0.0.1:{black_hole}/events", "{}")
