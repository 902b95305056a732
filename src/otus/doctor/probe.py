"""Questions whose answer may be a crash or silence; asked in a process of its own, answered as JSON.

`python -P -m otus.doctor.probe torch`, `... nvml` or `... imports NAME NAME ...`
"""

import importlib
import json
import sys
import time
import warnings
from typing import Any


def main(arguments: list[str]) -> None:
    """Print the answer to one question."""
    question, *names = arguments
    if question == "imports":
        for name in names:  # one line before and one after each, so that a crash has a name
            print(json.dumps({"begins": name}), flush=True)
            print(json.dumps({"name": name, "error": _import_error(name)}), flush=True)
        return
    print(json.dumps(_torch() if question == "torch" else _nvml()), flush=True)


def _import_error(name: str) -> str:
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _torch() -> dict[str, Any]:
    """Return what otus.doctor.gpu.Torch holds."""
    begin = time.monotonic()
    if error := _import_error("torch") or _import_error("torchaudio"):
        return {"error": error}
    import torch

    facts: dict[str, Any] = {"version": torch.__version__, "import_s": time.monotonic() - begin}
    facts["cuda"] = torch.version.cuda or getattr(torch.version, "hip", None)
    warnings.simplefilter("ignore")
    if torch.cuda.is_available():
        every = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        facts["devices"] = [f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in every]
        try:
            facts["computes"] = float(torch.ones(1000, device="cuda").sum()) == 1000
        except RuntimeError as error:
            facts["problem"] = str(error).splitlines()[0]
    elif facts["cuda"]:
        try:
            torch.zeros(1, device="cuda")
        except (RuntimeError, AssertionError) as error:
            facts["problem"] = str(error).splitlines()[0]
    return facts


def _nvml() -> dict[str, Any]:
    """Return what otus.doctor.gpu.Nvml holds."""
    import pynvml

    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        facts: dict[str, Any] = {
            "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
            "count": pynvml.nvmlDeviceGetCount(),
        }
        facts["devices"] = [_device(pynvml, i) for i in range(facts["count"])]
    except pynvml.NVMLError as error:
        return {"error_code": error.value, "error": str(error)}
    return facts


def _device(pynvml: Any, index: int) -> dict[str, Any]:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        facts: dict[str, Any] = {"name": _text(pynvml.nvmlDeviceGetName(handle)), "mig": is_divided(pynvml, handle)}
        pynvml.nvmlDeviceGetMemoryInfo(handle)
        if not facts["mig"]:  # a divided card has no utilisation as a whole
            pynvml.nvmlDeviceGetUtilizationRates(handle)
    except pynvml.NVMLError as error:
        return {"error_code": error.value, "error": str(error)}
    return facts


def is_divided(pynvml: Any, handle: Any) -> bool:
    """Return whether MIG is on: the card computes only by its instances."""
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError:  # a card that cannot be divided
        return False


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main(sys.argv[1:])
