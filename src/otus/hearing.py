"""How a detector listens, as far as the files for other programs tell of it."""

from dataclasses import dataclass
from pathlib import Path

from otus.atomic import read_json


@dataclass(frozen=True)
class Hearing:
    """The band of a detector in Hz, the windows that it scores and the hop between them in s, 0 if nobody knows.

    `spectrum_s` is the length of the windows of its spectra, from which the post-filter's features are made.
    """

    low_hz: float
    high_hz: float
    window_s: float
    hop_s: float
    spectrum_s: float

    def high_below(self, sample_rate: float) -> float:
        """Return the upper end of the band in a recording: no higher than half its sample rate."""
        return min(self.high_hz, sample_rate / 2)


def read_hearing(card_path: str | Path) -> Hearing:
    """Return how the network of a model card listens; of a network that scores frames a window is one frame."""
    card = read_json(card_path)
    frontend = card["frontend"]
    hop_s = frontend["hop_samples"] / frontend["sample_rate"]
    return Hearing(
        low_hz=float(frontend["low_hz"]),
        high_hz=float(frontend["high_hz"]),
        window_s=card["window_frames"] * hop_s,
        hop_s=hop_s,
        spectrum_s=frontend["n_fft"] / frontend["sample_rate"],
    )
