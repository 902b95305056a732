"""The GPU that this process uses, found by CUDA_VISIBLE_DEVICES (read, never written) or its UUID, and read by NVML."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from otus.doctor.gpu import HIDES_ALL
from otus.doctor.probe import is_divided


@dataclass(frozen=True)
class Reading:
    """A GPU at one moment: load in percent, memory in use in MB, W, degrees C. None: the driver does not tell."""

    util: float | None
    memory_mb: float | None
    power_w: float | None
    temperature_c: float | None


@dataclass(frozen=True)
class Gpu:
    """A GPU or a MIG instance. `remark` says what cannot be read of it and why, if so."""

    uuid: str
    name: str
    remark: str
    nvml: Any
    handle: Any

    def read(self) -> Reading:
        """Return what the driver tells now. Takes well under a millisecond on most drivers."""
        nvml, handle = self.nvml, self.handle
        if self.remark:  # load and power of the whole card are also those of its other users
            return Reading(None, self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20), None, None)
        return Reading(
            util=self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            memory_mb=self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20),
            power_w=self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            temperature_c=self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        )

    def _ask(self, question: Callable[[], float]) -> float | None:
        try:
            return float(question())
        except self.nvml.NVMLError:  # not supported, or the GPU has fallen off the bus
            return None


def find_gpu(environment: Mapping[str, str], uuid: str | None = None) -> Gpu | str:
    """Return the GPU that this process uses, or why there is none to be read, in a few words.

    `uuid` is what the library that computes says (`torch.cuda.get_device_properties(i).uuid`, with or without GPU-).
    Without it the first entry of CUDA_VISIBLE_DEVICES counts, or the first GPU if it is not set.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in HIDES_ALL:
        return f"no GPU: CUDA_VISIBLE_DEVICES is {repr(visible.strip()) if visible.strip() else 'empty'}"
    try:
        import pynvml as nvml
    except ImportError as error:
        return f"the GPU cannot be read: nvidia-ml-py is not installed ({error})"
    first = (visible or "").split(",")[0].strip()
    try:
        nvml.nvmlInit()
        handle = _handle(nvml, first, uuid, by_bus=environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")
        if not isinstance(handle, str) and is_divided(nvml, handle) and not _is_instance(nvml, handle):
            handle = _only_instance(nvml, handle)
        return handle if isinstance(handle, str) else _described(nvml, handle)
    except nvml.NVMLError as error:
        return f"the GPU cannot be read: {error}"


def _handle(nvml: Any, first: str, uuid: str | None, *, by_bus: bool) -> Any:
    """The handle of the GPU, or why it is not known which one it is."""
    if first.startswith("MIG-"):  # a process computes on one instance at most, and torch may name the whole card
        return nvml.nvmlDeviceGetHandleByUUID(first)
    if uuid:
        return _by_uuid(nvml, uuid)
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if first.startswith("GPU-"):  # CUDA takes the beginning of a UUID too
        found = [handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(first)]
        return (
            found[0] if len(found) == 1 else f"no GPU: {len(found)} of {len(handles)} have a UUID that begins {first}"
        )
    index = int(first) if first.isdigit() else 0
    if index >= len(handles) or (first and not first.isdigit()):
        return f"no GPU: CUDA_VISIBLE_DEVICES begins with '{first}', the driver has {len(handles)}, counted from 0"
    if not by_bus and len({nvml.nvmlDeviceGetName(handle) for handle in handles}) > 1:  # CUDA counts the fastest first
        return f"the GPU cannot be read: which one is number {index} is not known, because they are of several kinds"
    return handles[index]


def _by_uuid(nvml: Any, uuid: str) -> Any:
    """The GPU or, if there is none of that UUID, the MIG instance."""
    if uuid.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def _is_instance(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceIsMigDeviceHandle(handle))
    except nvml.NVMLError:  # a driver that knows no MIG
        return False


def _only_instance(nvml: Any, card: Any) -> Any:
    """The MIG instance of a divided card if it has one that we may see, or why it is not known which one is used."""
    found = []
    for i in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, i))
        except nvml.NVMLError:  # a place that is not taken, or not for us
            continue
    if len(found) == 1:
        return found[0]
    return f"the GPU cannot be read: it is divided (MIG) and which of {len(found)} instances is used is not known"


def _described(nvml: Any, handle: Any) -> Gpu:
    """The GPU with its names."""
    instance = _is_instance(nvml, handle)
    remark = "only its memory is read: it is a MIG instance, load and power are those of the whole card"
    return Gpu(
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        remark=remark if instance else "",
        nvml=nvml,
        handle=handle,
    )
