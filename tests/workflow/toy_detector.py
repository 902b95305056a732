"""A detector of others in few lines: where 250 to 1500 Hz are louder than usual. Usage: toy_detector.py SOUND CSV.

It knows nothing of Otus. Exit code 7 for a sound file whose name holds the text in TOY_FAILS_ON, if that is set.
"""

import csv
import os
import sys

import numpy as np
import soundfile

HOP_S, WINDOW_S, LOUDER_DB, SHORTEST_S = 0.02, 0.08, 5.0, 0.15


def main(sound, out):
    if os.environ.get("TOY_FAILS_ON", "\0") in os.path.basename(sound):  # noqa: PTH119
        sys.exit(7)
    samples, rate = soundfile.read(sound, always_2d=True)
    hop, window = int(HOP_S * rate), int(WINDOW_S * rate)
    starts = np.arange(0, len(samples) - window, hop)
    frames = np.stack([samples[start : start + window, 0] for start in starts]) * np.hanning(window)
    power = np.abs(np.fft.rfft(frames)) ** 2
    band = slice(int(250 * WINDOW_S), int(1500 * WINDOW_S))
    level = 10 * np.log10(power[:, band].mean(axis=1) + 1e-12)
    above = np.convolve(level - np.median(level), np.ones(5) / 5, "same")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], above > LOUDER_DB, [0]])))
    with open(out, "w", newline="") as file:  # noqa: PTH123
        writer = csv.writer(file)
        writer.writerow(["start", "end", "label", "score"])
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            if (last - first) * HOP_S >= SHORTEST_S:
                writer.writerow([first * HOP_S + 0.04, last * HOP_S + 0.04, "loud", above[first:last].max()])


main(*sys.argv[1:])
