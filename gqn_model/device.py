"""Device of a training or a prediction."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import torch

from gqn_data.errors import OptionError

# Options of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Keep freed memory in the process, on Linux with glibc; elsewhere do nothing.

    By default, glibc returns tensors of megabytes to the system when they are freed. Every training step then costs a
    page fault per 4 kB.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, -1)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device with that name; `auto` is cuda if available, otherwise cpu.

    Args:
        name: auto, cpu, cuda, cuda:1 ...
        local_rank: of this process on its machine; `auto` and `cuda` take the GPU with that number.

    Raises:
        OptionError: the device is not available.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and not count:
        return torch.device("cpu")
    wanted = f"cuda:{local_rank}" if name in ("auto", "cuda") else name
    possible = ["auto", "cpu", *(f"cuda:{k}" for k in range(count))]
    with contextlib.suppress(RuntimeError):
        device = torch.device(wanted)
        if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < count):
            return device
    raise OptionError(f"device is {name!r}; possible here: {', '.join(possible)}")


def choose_precision(name: str, device: torch.device) -> str:
    """Return float32 or bf16; `auto` is bf16 on a processor with AMX and a GPU with bf16, otherwise float32.

    Args:
        name: auto, float32 or bf16.
        device: from `choose_device`.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # AMX multiplies matrices of bf16. The vector products of AVX-512 do not always pay: docs/training.md has figures.
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "float32"


def describe(device: torch.device, threads: int) -> str:
    """Return a description of the device for people.

    Args:
        device: the device.
        threads: torch threads on the CPU; 0 for torch's default.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = threads or torch.get_num_threads()
    return f"the CPU, {threads} thread{'s' if threads > 1 else ''}"
