"""Metrics against independent oracles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from skimage import metrics as oracle

from gqn_model.evaluate.metrics import Errors, best_of, estimate, frame_errors, sample_spread, score, ssim


def _frames(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return smooth pictures with noise, which have structure and texture."""
    generator = torch.Generator().manual_seed(seed)
    *before, height, width = shape
    waves = torch.sin(torch.arange(height)[:, None] / 5 + torch.arange(width)[None] / 3) / 4 + 0.5
    return (waves + 0.2 * torch.randn(*before, height, width, generator=generator)).clamp(0, 1)


def _channels_last(frame: torch.Tensor) -> np.ndarray:
    return frame.double().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (84, 84), (11, 11), (12, 40)])
def test_errors_equal_those_of_scikit_image(size: tuple[int, int]) -> None:
    target, frames = _frames(3, 3, *size), _frames(2, 3, 3, *size, seed=1)
    found = frame_errors(frames, target)
    for sample in range(2):
        for scene in range(3):
            one, other = _channels_last(target[scene]), _channels_last(frames[sample, scene])
            squared = oracle.mean_squared_error(one, other)
            assert float(found.squared[sample, scene]) == pytest.approx(squared, rel=1e-5)
            assert float(found.absolute[sample, scene]) == pytest.approx(np.abs(one - other).mean(), rel=1e-5)
            # the settings that scikit-image documents for the implementation of Wang et al.
            similarity = oracle.structural_similarity(
                one,
                other,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
                channel_axis=2,
            )
            assert float(found.similarity[sample, scene]) == pytest.approx(similarity, abs=2e-6)
    result = score("prediction", Errors(*(part[:, :1] for part in found)))
    signal = [oracle.peak_signal_noise_ratio(*map(_channels_last, (target[0], frames[k, 0]))) for k in range(2)]
    assert result.psnr.mean == pytest.approx(np.mean(signal), abs=1e-4)


def test_ssim_of_equal_frames_and_of_plain_grey_frames() -> None:
    target = _frames(1, 3, 32, 32)
    assert float(ssim(target, target)[0]) == pytest.approx(1.0, abs=1e-6)
    # Plain grey frames have variance 0, so only the comparison of means remains.
    one, other = torch.full((1, 3, 16, 16), 0.3).double(), torch.full((1, 3, 16, 16), 0.6).double()
    expected = (2 * 0.3 * 0.6 + 1e-4) / (0.3**2 + 0.6**2 + 1e-4)
    assert float(ssim(one, other)[0]) == pytest.approx(expected, abs=1e-9)


def test_frames_smaller_than_the_window_have_errors_but_no_ssim() -> None:
    target, frames = _frames(2, 3, 8, 8), _frames(4, 2, 3, 8, 8, seed=1)
    found = frame_errors(frames, target)
    assert found.similarity.shape == (4, 2)
    assert bool(found.similarity.isnan().all())
    assert bool(found.squared.isfinite().all())


def test_predictions_are_clamped_before_measuring() -> None:
    target = torch.ones(1, 3, 16, 16)
    found = frame_errors(target * 1.7, target)
    assert float(found.squared[0]) == 0
    assert float(frame_errors(target * -2, target).absolute[0]) == 1


def test_rmse_is_on_255_and_computed_per_frame_first() -> None:
    target = torch.zeros(2, 3, 16, 16)
    frames = torch.stack([torch.full((3, 16, 16), 0.1), torch.full((3, 16, 16), 0.3)])
    result = score("grey", frame_errors(frames, target))
    assert result.rmse.mean == pytest.approx(255 * 0.2, rel=1e-6)
    assert result.mae.mean == pytest.approx(255 * 0.2, rel=1e-6)
    # 20 dB and 10.46 dB; the mean error is (0.01 + 0.09) / 2
    assert result.psnr.mean == pytest.approx((20 - 20 * math.log10(0.3)) / 2, abs=1e-4)
    assert result.psnr_of_mean_error.mean == pytest.approx(-10 * math.log10(0.05), abs=1e-4)


def test_samples_are_averaged_before_the_standard_error_over_scenes() -> None:
    values = torch.tensor([[1.0, 5.0, 3.0], [3.0, 7.0, 5.0]])  # two samples of three scenes
    found = estimate(values)
    assert found.mean == pytest.approx(4.0)
    assert found.error == pytest.approx(np.std([2, 6, 4], ddof=1) / math.sqrt(3))
    assert math.isnan(estimate(torch.ones(1)).error)


def test_the_standard_error_of_psnr_of_mean_error_matches_simulation() -> None:
    # Oracle by simulation: the spread of the metric over many sets of 400 scenes each.
    generator = torch.Generator().manual_seed(3)
    squared = 0.01 + 0.02 * torch.rand(500, 400, generator=generator, dtype=torch.float64)

    def psnr_of(values: torch.Tensor) -> tuple[float, float]:
        return score("prediction", Errors(values, values, values)).psnr_of_mean_error

    spread = np.std([psnr_of(values)[0] for values in squared], ddof=1)
    assert psnr_of(squared[0])[1] == pytest.approx(spread, rel=0.12)


def test_the_best_sample_has_the_least_squared_error_for_all_metrics() -> None:
    errors = Errors(
        absolute=torch.tensor([[0.1, 0.9], [0.2, 0.8]]),
        squared=torch.tensor([[0.5, 0.3], [0.4, 0.6]]),
        similarity=torch.tensor([[0.9, 0.1], [0.2, 0.7]]),
    )
    found = best_of(errors)
    assert found.squared.tolist() == pytest.approx([0.4, 0.3])
    assert found.absolute.tolist() == pytest.approx([0.2, 0.9])
    assert found.similarity.tolist() == pytest.approx([0.2, 0.1])


def test_the_best_of_more_samples_is_never_worse() -> None:
    target, frames = _frames(5, 3, 16, 16), _frames(9, 5, 3, 16, 16, seed=2)
    errors = frame_errors(frames, target)
    best = [best_of(Errors(*(part[:count] for part in errors))).squared for count in range(1, 10)]
    assert all(bool((more <= fewer).all()) for fewer, more in itertools.pairwise(best))
    assert bool((best[-1] < best[0]).any())


def test_crps_and_variance_equal_their_sums_over_pairs() -> None:
    samples, target = torch.rand(5, 2, 3, 4, 4, dtype=torch.float64), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    found = sample_spread(samples, target)
    pairs = [(samples[i], samples[j]) for i, j in itertools.combinations(range(5), 2)]
    for scene in range(2):
        apart = np.mean([float((one - other)[scene].abs().mean()) for one, other in pairs])
        off = float((samples - target)[:, scene].abs().mean())
        assert float(found.crps[scene]) == pytest.approx(off - apart / 2, rel=1e-9)
        # Half of the mean squared difference of pairs is the variance without bias.
        squares = np.mean([float((one - other)[scene].square().mean()) for one, other in pairs])
        assert float(found.variance[scene]) == pytest.approx(squares / 2, rel=1e-9)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_spread_over_error_is_the_scale_of_the_samples(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(5, 64, 3, 16, 16, generator=generator)  # with little to clamp
    samples = 0.5 + scale * noise[:4]
    spread = sample_spread(samples, 0.5 + noise[4])
    # The mean of 4 samples is off by the truth's deviation and by a quarter of the samples' variance.
    expected = scale * math.sqrt(1.25 / (1 + scale**2 / 4))
    assert spread.over_error == pytest.approx(expected, rel=0.02)
    least = sample_spread(0.5 + noise[:4], 0.5 + noise[4]).crps.mean()
    assert spread.crps.mean() >= least
