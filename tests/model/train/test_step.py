"""One training step: micro-batches, precision, compilation, CUDA graphs, and refused settings."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import batch_of, scenes_of, small
from torch.overrides import TorchFunctionMode

from gqn_data.errors import OptionError
from gqn_model.checkpoint.checkpoint import Checkpoint
from gqn_model.config import Config, resolve
from gqn_model.model.distributions import gaussian_floor
from gqn_model.model.inputs import Context, Inputs, to_device
from gqn_model.model.noise import step_noise
from gqn_model.train.distributed import ALONE
from gqn_model.train.metrics import TrainingMetrics
from gqn_model.train.run import start_run
from gqn_model.train.schedules import learning_rate_at, sigma_at
from gqn_model.train.step import StepResult, TrainStep, check_computing

CPU = torch.device("cpu")


def _inputs(config: Config, seed: int = 0) -> Inputs:
    frames, poses = scenes_of(config.training.batch_size, 5, config.model.frame_size, seed)
    return to_device(batch_of(frames, poses, 3, seed, config.training.targets), CPU)


def _loss(result: StepResult) -> float:
    losses = [float(part.loss) for part in result.micro_batches]
    return sum(losses) / len(losses)


def _steps(config: Config, count: int = 3) -> tuple[TrainStep, list[float]]:
    take_step = TrainStep(config, CPU)
    return take_step, [_loss(take_step(step, _inputs(config, seed=step))) for step in range(count)]


@pytest.mark.parametrize("changes", [{}, {"targets": 2}, {"model": "plane_sweep"}], ids=str)
def test_micro_batches_take_the_step_of_the_whole_batch(changes: dict[str, Any]) -> None:
    whole, losses = _steps(small(batch_size=8, clip=50.0, **changes))
    for parts in (2, 4, 8):
        divided, others = _steps(small(batch_size=8, accumulate=parts, clip=50.0, **changes))
        assert others == pytest.approx(losses, rel=1e-5)
        for one, other in zip(whole.model.parameters(), divided.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_step_equals_one_in_plain_torch() -> None:
    config = small(batch_size=4, clip=20.0)
    take_step = TrainStep(config, CPU)
    plain = copy.deepcopy(take_step.model)
    adam = torch.optim.Adam(plain.parameters(), lr=123.0, betas=(0.9, 0.999), eps=1e-8)
    for step in range(3):
        inputs = _inputs(config, seed=step)
        result = take_step(step, inputs)
        noise = step_noise(config.model, config.training.seed, step, 4, CPU)
        adam.param_groups[0]["lr"] = learning_rate_at(config.training, step)
        loss = -plain(inputs, sigma_at(config.training, step), noise).value.mean()
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 20.0)
        adam.step()
        assert _loss(result) == pytest.approx(float(loss.detach()), rel=1e-6)
        assert float(result.gradient_norm) == pytest.approx(float(norm), rel=1e-4)  # type: ignore[arg-type]
        assert result.loss_floor == gaussian_floor(inputs.target[0].numel(), sigma_at(config.training, step))
    for one, other in zip(take_step.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_step_of_the_plane_sweep_equals_one_in_plain_torch(optimizer: str) -> None:
    config = small(model="plane_sweep", batch_size=4, clip=0.1, optimizer=optimizer)
    take_step = TrainStep(config, CPU)
    plain = copy.deepcopy(take_step.model)
    matrices = [one for block in plain.blocks for one in block.parameters() if one.dim() == 2]  # type: ignore[union-attr]
    assert len(matrices) == 4 * config.model.depth
    muon = torch.optim.Muon(matrices, lr=123.0, weight_decay=0, adjust_lr_fn="match_rms_adamw")
    others = list(plain.parameters())
    if optimizer == "muon":
        others = [one for one in others if all(one is not matrix for matrix in matrices)]
    adam = torch.optim.Adam(others, lr=123.0, betas=(0.9, config.training.beta2), eps=1e-8)
    for step in range(3):
        context, query, target = _inputs(config, seed=step)
        errors = ((plain.predict(context, query) - target) ** 2).mean((-3, -2, -1))
        loss = (torch.sqrt(errors + 1e-5) - 1e-5**0.5).mean()
        assert _loss(take_step(step, Inputs(context, query, target))) == pytest.approx(float(loss.detach()), rel=1e-5)
        for part in (adam, muon):
            part.param_groups[0]["lr"] = learning_rate_at(config.training, step)
            part.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        adam.step()
        if optimizer == "muon":
            muon.step()
    for one, other in zip(take_step.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_bf16_narrows_the_network_but_not_the_metrics() -> None:
    wide, losses = _steps(small(batch_size=4))
    narrow, others = _steps(small(batch_size=4, precision="bf16"))
    assert others == pytest.approx(losses, rel=2e-3)
    assert others != losses
    found = narrow(3, _inputs(small(batch_size=4))).micro_batches[0]
    assert (found.loss.dtype, found.kl.dtype) == (torch.float32, torch.float32)
    assert all(parameter.dtype == torch.float32 for parameter in narrow.model.parameters())
    assert all(parameter.grad is not None for parameter in wide.model.parameters())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # from the compiler's modules
def test_a_compiled_network_takes_the_same_steps() -> None:
    plain, losses = _steps(small(batch_size=4), 2)
    compiled, others = _steps(small(batch_size=4, compile=True), 2)
    assert others == pytest.approx(losses, rel=1e-4)
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())  # checkpoints fit both


class _HostValues(TorchFunctionMode):
    """Record calls that make tensors of Python numbers or read them: on a GPU they wait for it."""

    found: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in (
            "tensor",
            "as_tensor",
            "new_tensor",
            "item",
            "tolist",
            "__bool__",
            "__int__",
            "__float__",
            "nonzero",
        ):
            self.found.append(name)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("model", ["gqn", "plane_sweep"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_neither_makes_nor_reads_values_of_the_host(model: str, precision: str) -> None:
    config = small(model=model, batch_size=4, precision=precision, context_per="scene", **ADAM[model])
    take_step, inputs = TrainStep(config, CPU), _inputs(config)
    with _HostValues() as values:
        torch.tensor(1.0)
        take_step(0, inputs)
    assert values.found == ["tensor"]


class Replayed:
    """Stand-in for a CUDA graph: computes on the tensors of the first call, overwritten with new values."""

    def __init__(self, work: Any) -> None:
        self._work, self._held = work, None

    def __call__(self, inputs: Inputs, sigma: torch.Tensor, noise: torch.Tensor) -> Any:
        given = [*inputs.context, inputs.query, inputs.target, sigma, noise]
        self._held = self._held or [tensor.clone() for tensor in given]
        for own, new in zip(self._held, given, strict=True):
            own.copy_(new)
        *context, query, target, sigma, noise = self._held
        return self._work(Inputs(Context(*context), query, target), sigma, noise)


# The only optimiser whose steps are captured.
ADAM: dict[str, dict[str, Any]] = {"gqn": {}, "plane_sweep": {"optimizer": "adam"}}
SWEEP = {"model": "plane_sweep", "context_per": "scene", **ADAM["plane_sweep"]}


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, SWEEP], ids=str)
def test_a_step_can_be_replayed_on_the_same_tensors(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # A Python number read in a step, such as the learning rate or sigma, would keep its first value in a replay.
    monkeypatch.setattr("gqn_model.train.step.check_computing", lambda *_: None)
    monkeypatch.setattr("gqn_model.train.step.CudaGraphStep", Replayed)
    monkeypatch.setattr("torch.optim.Adam", _adam_with_tensor_rate)
    changes = {"batch_size": 4, "clip": 20.0} | changes
    plain, losses = _steps(small(**changes), 5)
    replayed, others = _steps(small(**changes, cuda_graph=True), 5)
    assert others == losses
    rate = learning_rate_at(plain.config.training, 4)
    assert replayed.optimizer.param_groups[0]["lr"].item() == pytest.approx(rate)
    one, other = plain.optimizer_state()["param_groups"][0], replayed.optimizer_state()["param_groups"][0]
    assert other.pop("lr") == pytest.approx(one.pop("lr"))
    assert other == one


def _adam_with_tensor_rate(parameters: Any, **options: Any) -> torch.optim.Optimizer:
    return _ADAM(parameters, **options | {"capturable": False})


_ADAM = torch.optim.Adam


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


@needs_gpu
@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"accumulate": 2, "clip": 20.0}, SWEEP], ids=str)
def test_a_captured_step_equals_an_eager_one(changes: dict[str, Any]) -> None:
    device = torch.device("cuda")
    all_losses: list[list[float]] = []
    for captured in (False, True):
        config = small(batch_size=4, cuda_graph=captured, device="cuda", tf32=False, **changes)
        take_step = TrainStep(config, device)
        losses = []
        for step in range(10):
            frames, poses = scenes_of(4, 5, config.model.frame_size, step)
            losses.append(_loss(take_step(step, to_device(batch_of(frames, poses, 3, step), device))))
        all_losses.append(losses)
        if captured:  # resumes from a checkpoint, which is the same as without CUDA graphs
            state = take_step.optimizer_state()
            assert isinstance(state["param_groups"][0]["lr"], float)
            again = TrainStep(config, device, checkpoint=_checkpoint(take_step, 10))
            for step in range(10, 15):
                frames, poses = scenes_of(4, 5, config.model.frame_size, step)
                batch = to_device(batch_of(frames, poses, 3, step), device)
                loss = _loss(take_step(step, batch))
                assert _loss(again(step, batch)) == pytest.approx(loss, rel=1e-3)
    assert all_losses[1] == pytest.approx(all_losses[0], rel=1e-3)


def _checkpoint(take_step: TrainStep, step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        config=take_step.config,
        model=take_step.model.state_dict(),
        optimizer=take_step.optimizer_state(),
        loader={},
        fingerprint="",
        scene_set="",
        pose_order="",
    )


@pytest.mark.parametrize("clip", [20.0, 0.0])
def test_the_mean_gradient_norm_survives_a_step_that_overwrites_it(clip: float) -> None:
    # A replayed graph writes every step's norm into the same tensor.
    config = small(batch_size=4, clip=clip)
    take_step, metrics = TrainStep(config, CPU), TrainingMetrics(CPU, config.model.core_steps, ALONE)
    shared, norms = torch.zeros(()), []
    for step in range(3):
        result = take_step(step, _inputs(config, seed=step))
        if result.gradient_norm is not None:
            norms.append(float(result.gradient_norm))
            result = result._replace(gradient_norm=shared.copy_(result.gradient_norm))
        metrics.add(step, result)
    assert metrics.gradient_norm() == (pytest.approx(sum(norms) / 3) if clip else None)


def test_a_step_is_not_captured_if_batches_have_several_shapes() -> None:
    with pytest.raises(OptionError, match=r"context_per batch; .*--no-cuda-graph"):
        check_computing(small(cuda_graph=True, context_per="batch").training, 1, torch.device("cuda"))


def test_steps_are_captured_only_on_a_single_gpu() -> None:
    with pytest.raises(OptionError, match=r"cuda_graph .* cpu.*--no-cuda-graph"):
        TrainStep(small(cuda_graph=True), CPU)
    with pytest.raises(OptionError, match=r"cuda_graph .* 2 ranks.*--no-cuda-graph"):
        check_computing(small(cuda_graph=True).training, 2, torch.device("cuda"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, r"precision\b.*'fp16'.*float32, bf16"),
        ({"compile": "graph"}, r"compile\b.*'graph'.*\bbool\b"),
        ({"accumulate": 0}, r"accumulate\b.* 0\b.* 1\b"),
    ],
)
def test_an_invalid_value_is_refused_with_the_valid_ones(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve("tiny", (), changes)


def test_mods_combine() -> None:
    config = resolve("paper", ["shared_cores", "bf16", "compiled", "pool"])
    assert config.model.shared_cores
    assert config.model.representation == "pool"
    assert (config.training.precision, config.training.compile) == ("bf16", True)


def test_an_unsupported_setting_leaves_no_run_folder(bars: Path, tmp_path: Path) -> None:
    for changes in ({"cuda_graph": True}, {"accumulate": 3}):
        with pytest.raises(OptionError):
            start_run(str(bars), small(**changes), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
