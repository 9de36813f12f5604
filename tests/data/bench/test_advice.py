"""Advice from made-up rates."""

import pytest

from gqn_data.bench.advice import Measured, advise, worker_counts


def measured(workers, batch_ms, *, share=0.9, batch_size=36, views=6):
    """Return a measurement of workers that take `batch_ms` per batch, at a share of the limit."""
    scenes = 1000 * batch_size / batch_ms
    return Measured(
        workers=workers,
        scenes_per_second=scenes,
        frames_per_second=views * scenes,
        limit_frames_per_second=views * scenes / share,
        first_batch_seconds=0.1,
    )


def advice(rows, *steps, cores=2, **options):
    return advise(rows, batch_size=36, cores=cores, steps_ms=steps, **options)


FOUR = [measured(0, 50), measured(1, 40), measured(2, 21), measured(3, 14), measured(4, 10)]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (20, "3 workers suffice for a step of 20 ms (batch 36, 6 views)"),
        (22, "3 workers suffice for a step of 22 ms (batch 36, 6 views)"),  # 21 ms leave no tenth of margin
        (24, "2 workers suffice for a step of 24 ms (batch 36, 6 views)"),
        (50, "1 worker suffices for a step of 50 ms (batch 36, 6 views)"),
        (6000, "no workers suffice for a step of 6000 ms (batch 36, 6 views)"),  # 50 ms are less than 1 %
        (
            5,
            "4 workers, the fastest measured, take 10.0 ms per batch: too few for a step of 5 ms (batch 36, 6 views); "
            "training would wait 50% of the time",
        ),
        (
            10.5,
            "4 workers, the fastest measured, take 10.0 ms per batch: too few for a step of 10.5 ms "
            "(batch 36, 6 views); without a margin",
        ),
    ],
)
def test_the_fewest_workers_that_keep_up_with_a_step_are_named(step, said):
    assert advice(FOUR, step)[0] == said
    assert advice(FOUR[::-1], step)[0] == said  # in any order of measurements


def test_every_requested_step_gets_a_sentence():
    steps = [line for line in advice(FOUR, 20, 50) if "step of" in line]
    assert [line.split(" (")[0] for line in steps] == [
        "3 workers suffice for a step of 20 ms",
        "1 worker suffices for a step of 50 ms",
    ]


def test_without_workers_a_step_waits_for_its_batch():
    said = "without workers, a step of 20 ms (batch 36, 6 views) waits 8.0 ms more for each batch"
    assert advice([measured(0, 8)], 20)[0] == said


def test_workers_without_gain_are_reported():
    rows = [measured(0, 30), measured(1, 20), measured(2, 10), measured(3, 9.9), measured(4, 11)]
    assert "more than 2 workers bring no gain" in advice(rows, 20)
    assert "more than 1 worker brings no gain" in advice([measured(1, 20), measured(2, 20)], 20)


def test_a_rate_without_workers_does_not_make_workers_useless():
    # Without workers, no batch is made while a step runs, so equal rates are not equally good.
    assert not any("no gain" in line for line in advice([measured(0, 10), measured(1, 11)], 20))


def test_idle_cores_suggest_measuring_more_workers():
    assert "more than 4 workers may bring a gain: 16 cores are usable" in advice(FOUR, 20, cores=16)
    assert not any("bring" in line for line in advice(FOUR, 20, cores=4))


@pytest.mark.parametrize(
    ("share", "limit", "said"),
    [
        (
            0.9,
            "decoding",
            "90% of bare decoding in 4 processes: decoding is the bottleneck; the numpy container",
        ),
        (0.6, "decoding", "60% of bare decoding in 4 processes"),
        (
            0.2,
            "decoding",
            "20% of bare decoding in 4 processes: reading is the bottleneck, from a slow disk",
        ),
        (0.2, "gathering", "20% of bare gathering in 4 processes"),
    ],
)
def test_the_bottleneck_follows_from_the_share_of_the_limit(share, limit, said):
    last = advice([measured(4, 10, share=share)], 20, limit=limit)[-1]
    assert last.startswith(f"4 workers reach {said}")
    assert (":" in last) == (":" in said)


def test_a_busy_machine_is_named_and_no_bottleneck():
    last = advise([measured(4, 10, share=0.2)], batch_size=36, cores=2, load=5.2)[-1]
    assert last.startswith("a load of 5.2 on 2 cores before the measurement: other programs")
    assert "bottleneck" in advise([measured(4, 10, share=0.2)], batch_size=36, cores=2, load=0.2)[-1]


@pytest.mark.parametrize(
    ("cores", "counts"),
    [
        (1, [0, 1]),
        (2, [0, 1, 2]),
        (3, [0, 1, 2, 3]),
        (8, [0, 1, 2, 3, 4, 6, 8]),
        (10, [0, 1, 2, 3, 4, 6, 8, 10]),
        (64, [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]),
    ],
)
def test_steps_between_worker_counts_grow_with_the_cores(cores, counts):
    assert worker_counts(cores) == counts
