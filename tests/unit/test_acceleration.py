"""Networks made faster stay the same function; what a GPU takes at once is found by trying."""

import json

import pytest
import torch
from beats_checkpoint import write_checkpoint
from test_scorer import card
from torch import nn
from training_corpus import RECURRENT, TCN, new_network, single_threaded

from otus.config import BeatsSettings, Resnet18Settings, TimmSettings
from otus.devices import native_bfloat16
from otus.inference import acceleration, scorer
from otus.inference.acceleration import accelerated, chosen_precision
from otus.inference.batch_cache import fastest_batch, remembered_batch
from otus.models import Ensemble, Resnet18, WindowEnsemble, WindowMean, build_network, resnet18
from otus.models.beats import beats_ensemble
from otus.windows import window_frontend

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    yield from single_threaded()


def lived_in(network):
    """A network whose normalisations have seen something."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for values, low, high in ((module.running_mean, -0.3, 0.3), (module.running_var, 0.4, 2.0)):
                values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))
            with torch.no_grad():
                module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
                module.bias.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return network.eval()


def windows_network(monkeypatch):
    monkeypatch.setattr(resnet18, "_CHANNELS", (4, 8, 8, 16))
    torch.manual_seed(1)
    return lived_in(WindowEnsemble([Resnet18(Resnet18Settings(max_pool=p), 2) for p in (0, 1)]))


FRAME_NETWORKS = {
    "tcn": lambda: new_network(TCN),
    "crnn": lambda: new_network(RECURRENT),
    "dense_resnet": new_network,
    "two tcn": lambda: Ensemble([new_network(TCN, seed=s) for s in (1, 2)]),
    "windows of a dense_resnet": lambda: WindowMean(new_network(), 9),
}


def both(name, monkeypatch, dtype):
    """A network, the same accelerated, and an input."""
    generator = torch.Generator().manual_seed(5)
    if name == "resnet18":
        network, x = windows_network(monkeypatch), torch.rand(3, 1, 17, 128, generator=generator)
    else:
        network, x = lived_in(FRAME_NETWORKS[name]()), torch.randn(1, 16, 70, generator=generator)
    return network, accelerated(network, CPU, dtype), x


@pytest.mark.parametrize("name", [*FRAME_NETWORKS, "resnet18"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
def test_the_same_logits_up_to_rounding(monkeypatch, name, dtype, tolerance):
    network, fast, x = both(name, monkeypatch, dtype)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.inference_mode():
        expected, found = network(x), fast(x.to(dtype))
        assert torch.equal(fast(x.to(dtype)), found), "nothing is overwritten that is needed"
    assert found.dtype == torch.float32, "logits always are"
    assert expected.std() > 1e-2
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(1.0, float(expected.abs().max())))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["tcn", "resnet18"])
def test_no_normalisation_is_left_after_a_convolution(monkeypatch, name):
    network, fast, _ = both(name, monkeypatch, torch.bfloat16)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in fast.modules())
    assert next(fast.parameters()).dtype == torch.bfloat16
    assert {p.dtype for n, p in fast.named_parameters() if "logits" in n or "classifier" in n} == {torch.float32}
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in fast.parameters() if p.dim() == 4)
    assert not any(p.requires_grad for p in fast.parameters())


def test_bfloat16_is_told_from_what_the_device_says(monkeypatch):
    for bf16, tiles in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=bf16: found)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=tiles: found)
        assert native_bfloat16(CPU) is (bf16 or tiles)
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or True)
    assert native_bfloat16(torch.device("cuda"))
    assert asked == [{"including_emulation": False}], "emulation is slower than float32"


@pytest.mark.parametrize(
    ("precision", "native", "gains", "imported", "expected"),
    [
        ("auto", True, True, False, torch.bfloat16),
        ("auto", False, True, False, torch.float32),
        ("auto", True, False, False, torch.float32),
        ("auto", True, True, True, torch.float32),
        ("bfloat16", False, False, True, torch.bfloat16),
        ("float32", True, True, False, torch.float32),
    ],
)
def test_the_choice_of_precision(monkeypatch, precision, native, gains, imported, expected):
    monkeypatch.setattr(acceleration, "native_bfloat16", lambda device: native)
    network = new_network(TCN)
    network.gains_by_bfloat16 = gains
    assert chosen_precision(Ensemble([network]), CPU, precision, imported=imported) == expected


class Gpu:
    """Takes `fixed` s for a batch and `each` s for a window of it; has memory for `memory` windows."""

    def __init__(self, memory=10**9, fixed=0.0, each=0.0, error=None):
        self.memory, self.fixed, self.each, self.tried = memory, fixed, each, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")

    def seconds(self, batch):
        self.tried.append(batch)
        if batch > self.memory:
            raise self.error
        return self.fixed + self.each * batch


def test_the_batch_is_doubled_until_memory_runs_out_or_nothing_is_gained():
    assert fastest_batch(Gpu(memory=600, fixed=1.0).seconds) == 512
    saturated = Gpu(fixed=1e-3, each=1e-5)  # 5 % are not gained beyond 1024 windows: 1.098 of 2 at each doubling
    found = fastest_batch(saturated.seconds)
    assert found == saturated.tried[-2] == 1024
    assert fastest_batch(Gpu(fixed=1.0).seconds) == 4096
    assert fastest_batch(Gpu(each=1.0).seconds) == 64


def test_what_is_no_lack_of_memory_is_not_hidden():
    with pytest.raises(RuntimeError, match="launch failure"):
        fastest_batch(Gpu(100, 1.0, error=RuntimeError("CUDA error: unspecified launch failure")).seconds)


def test_a_gpu_that_others_fill_is_no_reason_to_give_up_before_scoring():
    full = Gpu(memory=10)
    assert fastest_batch(full.seconds) == 64 and full.tried == [64]


def test_a_batch_is_found_once(tmp_path):
    cache, asked = tmp_path / "new" / "batches.json", []

    def find():
        asked.append(1)
        return 256

    assert [remembered_batch(cache, key, find) for key in ("a", "a", "b", "a")] == [256] * 4
    assert len(asked) == 2
    assert json.loads(cache.read_text()) == {"a": 256, "b": 256}
    assert [remembered_batch(None, "a", find) for _ in range(2)] == [256, 256]
    assert len(asked) == 4


@pytest.mark.parametrize(
    "content", ["", "[1]", "nonsense", '{"a": "64"}', '{"a": -1}', '{"a": true}', '{"a": 99999999}']
)
def test_a_damaged_cache_is_none(tmp_path, content):
    cache = tmp_path / "batches.json"
    cache.write_text(content)
    assert remembered_batch(cache, "a", lambda: 128) == 128
    assert json.loads(cache.read_text()) == {"a": 128}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert remembered_batch(tmp_path / "file" / "batches.json", "a", lambda: 128) == 128


def test_a_gpu_tries_with_the_input_of_the_network(monkeypatch):
    """What is tried has the shape of so many windows, or of the frames that stand for them."""
    usual = window_frontend(Resnet18Settings())
    of_windows = scorer.Scorer(windows_network(monkeypatch), card(usual, "resnet18"), CPU)
    assert of_windows._example(5).shape == (5, 1, 17, 128)
    tcn, crnn = (scorer.Scorer(lived_in(FRAME_NETWORKS[n]()), card(), CPU) for n in ("tcn", "crnn"))
    assert tcn._example(64).shape == (1, 16, 1024 + 2 * new_network(TCN).context_frames)
    assert crnn._example(200).shape == (3, 16, 1024 + 2 * new_network(RECURRENT).context_frames)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    assert 0 < tcn._seconds(64) < 10


def test_networks_of_others_can_be_forced_to_bfloat16(tmp_path):
    """A frozen encoder that two heads share stays shared, and an image network is taken as it is."""
    pytest.importorskip("speechbrain")
    pytest.importorskip("timm")
    beats = BeatsSettings(checkpoint=str(tmp_path / "a.pt"), sha256=write_checkpoint(tmp_path / "a.pt"))
    image = TimmSettings(backbone="resnet18")
    torch.manual_seed(0)
    two = beats_ensemble([build_network(beats, bands=128, n_classes=1) for _ in range(2)])
    for network in (lived_in(two), lived_in(build_network(image, bands=128, n_classes=1))):
        x = torch.randn(1, 128, 96, generator=torch.Generator().manual_seed(5))
        with torch.inference_mode():
            expected = network(x)
            torch.testing.assert_close(accelerated(network, CPU, torch.float32)(x), expected, rtol=0, atol=1e-4)
            fast = accelerated(network, CPU, torch.bfloat16)
            found = fast(x.bfloat16())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)
    shared = accelerated(two, CPU, torch.float32).members
    assert shared[0].encoder is shared[1].encoder
