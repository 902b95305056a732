"""The processor or GPU that a job computes on, and what it can do."""

import torch

from otus.errors import MissingPartError


def choose_device(wanted: str) -> torch.device:
    """Return the device that the config asks for; auto takes a GPU if one is visible.

    Raises MissingPartError if a GPU is asked for and none is visible.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MissingPartError("device: cuda is set but no GPU is visible; use device: auto or cpu.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def gpu_uuid(device: torch.device) -> str | None:
    """Return the UUID of a GPU, as the telemetry asks for it, or None for the CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def native_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 numbers in hardware, by what it says of itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
