"""The resume file: the state of a training under way, taken over only by the very same training and only if whole."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from otus.atomic import replacing


def write_resume(path: Path, digest: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, lists, dicts) for the training that `digest` names, atomically.

    The first line of the file holds that digest and the SHA-256 of the rest. Raises MissingPartError if the disk
    is full or the folder cannot be written; the state written before stays then.
    """
    buffer = io.BytesIO()  # torch hides a full disk behind an error of its own
    torch.save(state, buffer)
    content = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(_first_line(digest, content) + content)


def read_resume(path: Path, digest: str, progress: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the state in `path` (tensors on the CPU) if it is whole and of the training that `digest` names.

    Otherwise None, with a progress line if there is a file.
    """
    if not path.exists():
        return None
    try:
        line, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        progress(f"{path} cannot be read ({error.strerror}): starting anew")
        return None
    if line + b"\n" != _first_line(digest, content):
        of_another = line.endswith(hashlib.sha256(content).hexdigest().encode())
        reason = "is the state of another training" if of_another else "is damaged"
        progress(f"{path} {reason}: starting anew")
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state


def _first_line(digest: str, content: bytes) -> bytes:
    return f"{digest} {hashlib.sha256(content).hexdigest()}\n".encode()
