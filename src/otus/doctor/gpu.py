"""Torch, CUDA and the driver: whether they agree, and why no GPU is seen. Without one the CPU does the work."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otus.doctor.commands import Answer, ask
from otus.doctor.python import json_lines
from otus.doctor.report import Finding

#: The oldest driver for each CUDA, by NVIDIA's table; a newer minor version of CUDA runs on it too.
_OLDEST_DRIVER = {11: "450", 12: "525", 13: "580"}
#: Values of CUDA_VISIBLE_DEVICES that leave no GPU; the last is Slurm's.
HIDES_ALL = ("", "-1", "NoDevFiles")
#: Codes of NVML.
_NO_PERMISSION, _NOT_LOADED, _NO_LIBRARY, _MISMATCH = 4, 9, 12, 18
_DRIVER = "install the NVIDIA driver; a container needs --nv (apptainer) or --gpus all (docker)"
#: An import that takes longer than this says something about the disk that the environment is on.
_SLOW_IMPORT_S = 30.0


@dataclass(frozen=True)
class Torch:
    """What torch says: version, the CUDA that it was built for (None: for the CPU only), the GPUs that it sees."""

    version: str = ""
    cuda: str | None = None
    devices: tuple[str, ...] = ()
    computes: bool = False
    problem: str = ""
    import_s: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Nvml:
    """What the driver says: its version, the newest CUDA that it can run, its GPUs; or the error and its code."""

    driver: str = ""
    cuda: str = ""
    count: int = 0
    devices: tuple[Mapping[str, Any], ...] = ()
    error_code: int = 0
    error: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What else decides whether a GPU is seen. `visible` is CUDA_VISIBLE_DEVICES, None if it is not set."""

    visible: str | None = None
    login_node: bool = False
    job_without_gpu: bool = False
    card: bool = False
    barred: str = ""


def gpu_findings(timeout_s: float = 120.0) -> Iterator[Finding]:
    """Torch, the driver, and whether torch can compute on a GPU."""
    torch = _torch(_probe("torch", timeout_s))
    nvml = _nvml(_probe("nvml", timeout_s / 4))
    yield judge_torch(torch)
    if not torch.error:
        around = surroundings(os.environ)
        yield judge_gpu(torch, nvml, around)
        yield judge_nvml(nvml)


def judge_torch(torch: Torch) -> Finding:
    """Say whether torch can be imported, and for what it was built."""
    if torch.error:
        remedy = "install torch again from requirements.lock (README.md, Set up); a full disk or a stopped download"
        return Finding("torch", "missing", f"cannot be imported: {torch.error}", f"{remedy} leaves half of it")
    built = f"built for CUDA {torch.cuda}" if torch.cuda else "built for the CPU only"
    text = f"{torch.version}, {built}, imported in {torch.import_s:.1f} s"
    if torch.import_s > _SLOW_IMPORT_S:
        remedy = "every job pays this; put the environment on a faster file system"
        return Finding("torch", "warning", text, remedy)
    return Finding("torch", "ok", text)


def judge_gpu(torch: Torch, nvml: Nvml, around: Surroundings) -> Finding:
    """Say which GPU computes, or why none is seen."""
    if torch.devices and torch.computes:
        driver = f", driver {nvml.driver} for CUDA up to {nvml.cuda}" if nvml.driver else ""
        return Finding("GPU", "ok", f"{', '.join(torch.devices)}{driver}")
    if torch.devices:
        text = f"{torch.devices[0]} is seen but does not compute: {torch.problem or 'wrong result'}"
        return Finding("GPU", "missing", text, "set `device: cpu` in the config, or use a GPU that this torch supports")
    if sys.platform == "darwin":
        return Finding("GPU", "ok", "none that Otus uses on macOS; the CPU does the work")
    return next(finding for finding in _reasons(torch, nvml, around) if finding)


def _reasons(torch: Torch, nvml: Nvml, around: Surroundings) -> Iterator[Finding | None]:
    """Yield why torch sees no GPU: the first that is not None holds."""
    yield _on_login_node(torch, nvml) if around.login_node and not around.card and nvml.count == 0 else None
    yield _of_torch(torch, nvml, around)
    yield _of_environment(nvml, around)
    yield _of_driver(torch, nvml, around)
    divided = nvml.count > 0 and all(device.get("mig") for device in nvml.devices)
    if divided:
        yield _no_gpu("the card is divided (MIG is on) but has no instance", "ask the administrator for a MIG instance")
    yield _no_gpu(torch.problem or "torch does not say why", "run nvidia-smi and ask the administrator")


def _no_gpu(why: str, remedy: str) -> Finding:
    return Finding("GPU", "warning", f"none is used, the CPU does the work: {why}", remedy)


def _on_login_node(torch: Torch, nvml: Nvml) -> Finding:
    if torch.cuda is None:
        return _no_gpu("torch is built for the CPU only, also in jobs", "install torch from requirements.lock")
    text = (
        "none here, as is usual on a login node; jobs get theirs from Slurm (to look there: srun --gpus=1 otus doctor)"
    )
    return Finding("GPU", "ok", text)


def _of_torch(torch: Torch, nvml: Nvml, around: Surroundings) -> Finding | None:
    if torch.cuda is not None:
        return None
    if nvml.count or around.card:
        return _no_gpu("torch is built for the CPU only", "install torch from requirements.lock (README.md, Set up)")
    return Finding("GPU", "ok", "none, and torch is built for the CPU; the CPU does the work")


def _of_environment(nvml: Nvml, around: Surroundings) -> Finding | None:
    if around.job_without_gpu:
        return _no_gpu("this Slurm job was given none", "ask for one: --gpus=1 or --gres=gpu:1")
    if around.visible is not None and around.visible.strip() in HIDES_ALL:
        return _no_gpu(f"CUDA_VISIBLE_DEVICES is '{around.visible}', which hides all", "unset CUDA_VISIBLE_DEVICES")
    if around.visible and nvml.count and not any(device.get("mig") for device in nvml.devices):
        why = f"CUDA_VISIBLE_DEVICES is '{around.visible}', but the driver has {nvml.count}, counted from 0"
        return _no_gpu(why, "unset CUDA_VISIBLE_DEVICES, or name a GPU that is there")
    return None


def _of_driver(torch: Torch, nvml: Nvml, around: Surroundings) -> Finding | None:
    if around.barred:
        return _no_gpu(around.barred, "ask the administrator to let your group use the GPU")
    if nvml.error:
        return _of_nvml_error(nvml, around)
    runtime, driver = _major(torch.cuda), _major(nvml.cuda)
    if driver and runtime > driver:
        why = f"driver {nvml.driver} is for CUDA up to {nvml.cuda}, torch needs CUDA {torch.cuda}"
        oldest = _OLDEST_DRIVER.get(runtime, "a newer one")
        remedy = f"update the driver ({oldest} or newer), or install torch {torch.version.partition('+')[0]} for CUDA"
        return _no_gpu(why, f"{remedy} {driver}")
    return None


def _of_nvml_error(nvml: Nvml, around: Surroundings) -> Finding:
    if nvml.error_code == _MISMATCH:
        return _no_gpu("the driver was updated and the old one still runs", "restart the machine")
    if nvml.error_code not in (_NO_LIBRARY, _NOT_LOADED):
        return _no_gpu(f"the driver does not answer ({nvml.error})", "restart the machine or ask the administrator")
    if around.card:
        return _no_gpu(f"there is an NVIDIA card but no driver ({nvml.error})", _DRIVER)
    return Finding("GPU", "ok", "none: no NVIDIA card, no driver; the CPU does the work")


def judge_nvml(nvml: Nvml) -> Finding:
    """Say whether the driver tells how busy a GPU is (the telemetry of jobs)."""
    if nvml.error_code in (_NO_LIBRARY, _NOT_LOADED):
        return Finding("NVML", "skipped", f"no driver to ask ({nvml.error})")
    broken = [d for d in nvml.devices if d.get("error")]
    code, error = (broken[0]["error_code"], broken[0]["error"]) if broken else (nvml.error_code, nvml.error)
    if error:
        cause = "not permitted" if code == _NO_PERMISSION else "no answer"
        remedy = "nothing in the results depends on it; the administrator can allow it"
        return Finding("NVML", "warning", f"load and memory of the GPU cannot be read: {cause} ({error})", remedy)
    names = ", ".join(f"{d.get('name')}{' (MIG)' if d.get('mig') else ''}" for d in nvml.devices)
    return Finding("NVML", "ok", f"driver {nvml.driver}: load and memory can be read of {names or 'no GPU'}")


def surroundings(environment: Mapping[str, str], root: Path = Path("/")) -> Surroundings:
    """Look at the environment, the device files and the PCI bus below `root`."""
    in_job = "SLURM_JOB_ID" in environment
    given = any(environment.get(name) for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE"))
    return Surroundings(
        visible=environment.get("CUDA_VISIBLE_DEVICES"),
        login_node=not in_job and shutil.which("sbatch") is not None,
        job_without_gpu=in_job and not given,
        card=any(_is_nvidia_gpu(device) for device in (root / "sys/bus/pci/devices").glob("*")),
        barred=_barred(root / "dev"),
    )


def _is_nvidia_gpu(device: Path) -> bool:
    try:
        return (device / "vendor").read_text().strip() == "0x10de" and (device / "class").read_text().startswith("0x03")
    except OSError:
        return False


def _barred(folder: Path) -> str:
    """Return which device file of the driver cannot be opened and why, or nothing."""
    for file in (folder / "nvidiactl", folder / "nvidia0", folder / "nvidia-uvm"):
        if file.exists():
            try:
                os.close(os.open(file, os.O_RDWR | os.O_NONBLOCK))
            except PermissionError as error:
                by = "the control group of this session" if error.errno == errno.EPERM else "its permissions"
                return f"{file} may not be opened ({by})"
            except OSError as error:
                return f"{file} cannot be opened ({error.strerror})"
    if (folder / "nvidia0").exists() and not (folder / "nvidia-uvm").exists():
        return f"{folder / 'nvidia-uvm'} is not there although {folder / 'nvidia0'} is"
    return ""


def _major(version: str | None) -> int:
    head = (version or "").split(".")[0]
    return int(head) if head.isdigit() else 0


def _probe(question: str, timeout_s: float) -> Answer:
    return ask([sys.executable, "-P", "-m", "otus.doctor.probe", question], timeout_s)


def _facts(answer: Answer) -> dict[str, Any]:
    rows = [row for row in json_lines(answer.text) if not answer.problem]
    return rows[-1] if rows else {"error": answer.problem or "no answer"}


def _torch(answer: Answer) -> Torch:
    facts = _facts(answer)
    return Torch(**{**facts, "devices": tuple(facts.get("devices", ()))})


def _nvml(answer: Answer) -> Nvml:
    facts = _facts(answer)
    return Nvml(**{**facts, "devices": tuple(facts.get("devices", ()))})
