"""A driver of NVIDIA that is not there, for the tests of the telemetry."""

from dataclasses import dataclass, field
from types import SimpleNamespace


class NVMLError(Exception):
    """What nvidia-ml-py raises."""


@dataclass
class Card:
    """A card or a MIG instance; figures may be an exception, which is raised, or a list, whose values follow."""

    uuid: str
    name: str = "NVIDIA H200"
    util: object = 40
    memory_mb: object = 1000
    power_w: object = 200
    temperature_c: object = 50
    divided: bool = False
    instances: list = field(default_factory=list)
    is_instance: bool = False


def _figure(value):
    if isinstance(value, list):
        value = value.pop(0) if len(value) > 1 else value[0]
    if isinstance(value, Exception):
        raise value
    return value


class FakeNvml:
    """The functions of pynvml that are used, over some cards."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *cards, error=None):
        self.cards, self.error, self.asked = cards, error, []

    def nvmlInit(self):
        if self.error:
            raise NVMLError(self.error)

    def nvmlDeviceGetCount(self):
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        every = [*self.cards, *(instance for card in self.cards for instance in card.instances)]
        found = [card for card in every if card.uuid == uuid]
        if not found:
            raise NVMLError("Not Found")
        return found[0]

    def nvmlDeviceGetUUID(self, card):
        return card.uuid

    def nvmlDeviceGetName(self, card):
        return card.name

    def nvmlDeviceGetMigMode(self, card):
        if card.is_instance:
            raise NVMLError("Invalid Argument")
        return [int(card.divided), int(card.divided)]

    def nvmlDeviceIsMigDeviceHandle(self, card):
        return int(card.is_instance)

    def nvmlDeviceGetMaxMigDeviceCount(self, card):
        return 7 if card.divided else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card, index):
        if index >= len(card.instances):
            raise NVMLError("Not Found")
        return card.instances[index]

    def nvmlDeviceGetUtilizationRates(self, card):
        self.asked.append((card.uuid, "util"))
        return SimpleNamespace(gpu=_figure(card.util))

    def nvmlDeviceGetMemoryInfo(self, card):
        self.asked.append((card.uuid, "memory"))
        return SimpleNamespace(used=_figure(card.memory_mb) * 2**20)

    def nvmlDeviceGetPowerUsage(self, card):
        self.asked.append((card.uuid, "power"))
        return _figure(card.power_w) * 1000

    def nvmlDeviceGetTemperature(self, card, sensor):
        return _figure(card.temperature_c)
