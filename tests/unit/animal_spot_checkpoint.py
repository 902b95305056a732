"""Random checkpoints in ANIMAL-SPOT's layout, and its prediction written down plainly: one window after another."""

import math

import torch
import torch.nn.functional as F

STRIDES = {0: [2, 2, 2, 2], 1: [1, 2, 2, 2], 2: [1, 2, 2, 2]}
CLASSES = {"noise": 0, "target": 1}
DATA = {
    "sr": 16_000,
    "preemphases": 0.98,
    "n_fft": 512,
    "hop_length": 160,
    "n_freq_bins": 64,
    "fmin": 200,
    "fmax": 5000,
    "freq_compression": "linear",
    "min_level_db": -100,
    "ref_level_db": 20,
}


def checkpoint(*, widths, classes=CLASSES, max_pool=2, kernel=7, seed=0, **data):
    """The content of an ANIMAL-SPOT.pk with random weights; `widths` are the channels of the four stages."""
    g = torch.Generator().manual_seed(seed)
    n_outputs = max(2, len(classes))

    def weights(*shape):
        return torch.randn(shape, generator=g) * math.sqrt(2 / math.prod(shape[1:]))

    def norm(name, n):
        return {
            f"{name}.weight": 0.5 + torch.rand(n, generator=g),
            f"{name}.bias": 0.1 * torch.randn(n, generator=g),
            f"{name}.running_mean": 0.1 * torch.randn(n, generator=g),
            f"{name}.running_var": 0.5 + torch.rand(n, generator=g),
            f"{name}.num_batches_tracked": torch.tensor(7),
        }

    state = {"conv1.weight": weights(widths[0], 1, kernel, kernel)} | norm("bn1", widths[0])
    before = widths[0]
    for layer, (width, stride) in enumerate(zip(widths, STRIDES[max_pool], strict=True), start=1):
        for block, (n_in, step) in enumerate(((before, stride), (width, 1))):
            here = f"layer{layer}.{block}"
            state |= {f"{here}.conv1.weight": weights(width, n_in, 3, 3)} | norm(f"{here}.bn1", width)
            state |= {f"{here}.conv2.weight": weights(width, width, 3, 3)} | norm(f"{here}.bn2", width)
            if step != 1 or n_in != width:
                state |= {f"{here}.shortcut.0.weight": weights(width, n_in, 1, 1)} | norm(f"{here}.shortcut.1", width)
        before = width
    linear = {
        "linear.weight": 0.3 * torch.randn(n_outputs, before, generator=g),
        "linear.bias": 0.1 * torch.randn(n_outputs, generator=g),
    }
    return {
        "encoderOpts": {
            "input_channels": 1,
            "conv_kernel_size": kernel,
            "max_pool": max_pool,
            "resnet_size": 18,
        },
        "classifierOpts": {"input_channels": before, "pooling": "avg", "num_classes": n_outputs},
        "dataOpts": DATA | data,
        "encoderState": state,
        "classifierState": linear,
        "classes": dict(classes),
    }


def windows(n_samples, content, window_s, hop_s):
    """First and last sample of every window."""
    rate = content["dataOpts"]["sr"]
    length, hop = math.ceil(window_s * rate), math.ceil(hop_s * rate)
    number = max(math.ceil((n_samples + 1 - length) / hop), 1)
    return [(i * hop, min(i * hop + length, n_samples)) for i in range(number)]


def probabilities(samples, content, *, window_s, hop_s, min_max):
    """The softmax (windows, classes) of every window of `samples`, each computed alone."""
    found = [
        torch.softmax(_network(_spectrogram(samples[a:b], content["dataOpts"], min_max), content), dim=1)
        for a, b in windows(len(samples), content, window_s, hop_s)
    ]
    return torch.cat(found)


def _spectrogram(x, data, min_max):
    y = torch.empty_like(x)
    y[0] = x[0]
    y[1:] = x[1:] - data["preemphases"] * x[:-1]
    n_fft, rate = data["n_fft"], data["sr"]
    if len(y) < n_fft:
        y = torch.cat([y, torch.zeros(n_fft - len(y))])
    window = torch.hann_window(n_fft)
    spectrum = torch.view_as_real(
        torch.stft(y, n_fft, data["hop_length"], window=window, center=False, onesided=True, return_complex=True)
    )
    power = (spectrum.pow(2).sum(-1) / window.pow(2).sum()).T.unsqueeze(0)
    if data["freq_compression"] == "linear":
        first = math.floor(n_fft * data["fmin"] / rate)
        last = min(n_fft - 1, math.ceil(n_fft * data["fmax"] / rate))
        power = power[:, :, first:last].unsqueeze(0)
        power = F.interpolate(power, size=(power.shape[2], data["n_freq_bins"]), mode="nearest").squeeze(0)
    else:
        power = torch.matmul(power, _triangles(data))
    level = 10 * torch.log10(torch.clamp(power, min=1e-10))
    if not min_max:
        least = data["min_level_db"]
        return torch.clamp((level - data["ref_level_db"] - least) / -least, 0, 1)
    level -= level.min()
    return level if level.max() == 0 else level / level.max()


def _triangles(data):
    n_bins = data["n_fft"] // 2 + 1
    lowest, highest = (2595 * math.log10(1 + f / 700) for f in (data["fmin"], data["fmax"]))
    mel = torch.linspace(lowest, highest, data["n_freq_bins"] + 2)
    hz = 700 * (10 ** (mel / 2595) - 1)
    corners = torch.floor(((n_bins - 1) * 2 + 1) * hz / data["sr"]).long().tolist()
    bank = torch.zeros(n_bins, data["n_freq_bins"])
    for band in range(data["n_freq_bins"]):
        left, middle, right = corners[band : band + 3]
        for k in range(left, middle):
            bank[k, band] = (k - left) / (middle - left)
        for k in range(middle, right):
            bank[k, band] = (right - k) / (right - middle)
    return bank


def _network(spectrogram, content):
    state, max_pool = content["encoderState"], content["encoderOpts"]["max_pool"]

    def norm(x, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    x = spectrogram.unsqueeze(0)
    kernel = content["encoderOpts"]["conv_kernel_size"]
    x = F.relu(norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=kernel // 2), "bn1"))
    if max_pool == 1:
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    for layer, stride in enumerate(STRIDES[max_pool], start=1):
        for block, step in ((0, stride), (1, 1)):
            here = f"layer{layer}.{block}"
            y = F.relu(norm(F.conv2d(x, state[f"{here}.conv1.weight"], stride=step, padding=1), f"{here}.bn1"))
            y = norm(F.conv2d(y, state[f"{here}.conv2.weight"], padding=1), f"{here}.bn2")
            if f"{here}.shortcut.0.weight" in state:
                x = norm(F.conv2d(x, state[f"{here}.shortcut.0.weight"], stride=step), f"{here}.shortcut.1")
            x = F.relu(y + x)
    pooled = x.mean(dim=-1).mean(dim=-1)
    return F.linear(pooled, content["classifierState"]["linear.weight"], content["classifierState"]["linear.bias"])
