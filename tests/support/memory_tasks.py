"""Tasks of child processes in tests of shared memory. Spawned processes import them by name."""


def fill(ring, number, value, size):
    ring.block(number)[:size] = value
