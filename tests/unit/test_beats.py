"""The BEATs encoder, its checkpoints, what is frozen, and the head."""

import copy
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from beats_checkpoint import CFG, VARIANTS, sound, weights, write_checkpoint
from safetensors.torch import load, save
from torch import nn

from otus.config import BeatsSettings
from otus.errors import DataError, MissingPartError
from otus.frontend import FBANK_SILENCE, beats_frontend, kaldi_fbank
from otus.models import build_network, learnt_state
from otus.models.beats import Beats, _precision_kept

DATA = Path(__file__).parent / "data"
TABLE = "relative_attention_bias"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("beats") / "small.pt"
    return path, write_checkpoint(path)


def build(path, digest, **changes):
    torch.manual_seed(0)
    settings = BeatsSettings(checkpoint=str(path), sha256=digest, **{"head_channels": 16, **changes})
    network = build_network(settings, bands=128, n_classes=2)
    assert isinstance(network, Beats)
    return network


@pytest.fixture
def network(checkpoint):
    return build(*checkpoint)


def fbank(n_frames=108):
    return kaldi_fbank(sound(), beats_frontend())[..., :n_frames]


def blocks(network):
    return network.encoder.encoder.layers


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_are_those_of_an_independent_implementation(tmp_path, variant):
    network = build(tmp_path / "a.pt", write_checkpoint(tmp_path / "a.pt", VARIANTS[variant]))
    tokens = network.encode(fbank(96)).flatten(1, 2).numpy()
    with np.load(DATA / "beats_reference.npz") as reference:
        expected = reference["otherwise" if variant == "otherwise" else "as_published"]
    np.testing.assert_allclose(tokens, expected, atol=1e-5)


def test_tokens_are_those_that_speechbrain_makes_of_the_sound(checkpoint, network):
    from speechbrain.lobes.models.beats import BEATs

    theirs = BEATs(str(checkpoint[0])).extract_features(sound(), torch.ones(2))[0]
    torch.testing.assert_close(network.encode(fbank(96)).flatten(1, 2), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 16, 37, 512])
def test_every_frame_gets_its_logits(network, frames):
    x = torch.randn(3, 128, frames)
    assert network.eval()(x).shape == (3, 4, frames)
    assert network.encode(x).shape == (3, *network.token_shape(frames))


def test_the_end_of_the_last_time_step_is_silence(network):
    x = fbank(37)
    filled = torch.cat([x, torch.full((2, 128, 11), FBANK_SILENCE)], dim=-1)
    torch.testing.assert_close(network.encode(x), network.encode(filled))


def test_kept_tokens_give_the_same_logits(network):
    network.eval()
    x = fbank(96)
    with torch.no_grad():
        tokens = network.encode(x)
        torch.testing.assert_close(network.forward_tokens(tokens, x), network(x))
        torch.testing.assert_close(network.forward_tokens(tokens.half(), x), network(x), rtol=0, atol=0.02)


def test_a_frozen_encoder_neither_learns_nor_drops_out(network):
    network.train()
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    assert not any(module.training for module in network.encoder.modules())
    assert network.pooling.training
    x = fbank(96)
    assert torch.equal(network.encode(x), network.encode(x))
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    network(x).square().mean().backward()
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in network.encoder.state_dict().items())
    assert all(p.grad is None for p in network.encoder.parameters())
    head = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head if p is not network.pooling.weight.bias)
    assert not any(name.startswith("encoder.") for name in learnt_state(network))


def test_unfreezing_touches_the_last_blocks_only_and_never_the_shared_table(network):
    network.unfreeze(1)
    learning = {name for name, p in network.encoder.named_parameters(remove_duplicate=False) if p.requires_grad}
    assert learning == {
        f"encoder.layers.2.{name}" for name, _ in blocks(network)[2].named_parameters() if TABLE not in name
    }
    assert len({id(block.self_attn.relative_attention_bias) for block in blocks(network)}) == 1
    seen = []
    for block in blocks(network):
        block.register_forward_hook(lambda _block, _inputs, out: seen.append(out[0].requires_grad))
    network(fbank(96)).sum().backward()
    assert seen == [False, False, True]
    assert all(p.grad is not None for p in network.encoder.parameters() if p.requires_grad)


def test_only_unfrozen_blocks_drop_out_and_only_in_training(network):
    network.train().unfreeze(2)
    assert [block.training for block in blocks(network)] == [False, True, True]
    assert [block.dropout1.training for block in blocks(network)] == [False, True, True]
    assert not network.encoder.encoder.training
    x = fbank(96)
    assert not torch.equal(network.encode(x), network.encode(x))
    network.eval()
    assert not any(module.training for module in network.encoder.modules())
    assert torch.equal(network.encode(x), network.encode(x))


def test_freezing_again_is_as_before(network):
    frozen = network.frozen
    network.train().unfreeze(3)
    assert network.frozen != frozen
    network.unfreeze(0)
    assert network.frozen == frozen == ("encoder.",)
    assert not any(p.requires_grad for p in network.encoder.parameters())
    assert not any(block.training for block in blocks(network))
    assert not network.encode(fbank(96)).requires_grad


def test_unfrozen_blocks_are_stored_and_come_back(checkpoint, network):
    network.unfreeze(1)
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p.add_(0.01)
    stored = load(save({name: value.contiguous() for name, value in learnt_state(network).items()}))
    assert {name.split(".self_attn")[0] for name in stored if "self_attn." in name} == {"encoder.encoder.layers.2"}
    assert not any(TABLE in name for name in stored)
    again = build(*checkpoint)
    missing, unexpected = again.load_state_dict(stored, strict=False)
    assert not unexpected
    assert not set(missing) & set(learnt_state(again))
    torch.testing.assert_close(again.eval()(fbank()), network.eval()(fbank()))


def test_a_copy_is_a_network_of_its_own(network):
    network.unfreeze(1)
    copied = copy.deepcopy(network).eval()
    torch.testing.assert_close(copied(fbank(96)), network.eval()(fbank(96)))
    assert len({id(block.self_attn.relative_attention_bias) for block in blocks(copied)}) == 1
    assert copied.frozen == network.frozen
    blocks(copied)[2].fc1.weight.data.zero_()
    assert blocks(network)[2].fc1.weight.abs().sum() > 0


@pytest.mark.parametrize("unfrozen", [0, 2])
def test_every_weight_that_learns_is_in_one_group(network, unfrozen):
    network.unfreeze(unfrozen)
    groups = network.parameter_groups(1e-3, 1e-5)
    assert [group["lr"] for group in groups] == ([1e-3, 1e-5] if unfrozen else [1e-3])
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def test_calls_much_shorter_than_a_time_step_are_placed(network):
    """Frames 1, 7 and 12 of every third time step: the tokens alone cannot tell these from their neighbours."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.zeros(96)
    truth[torch.arange(1, 96, 48)] = truth[torch.arange(23, 96, 48)] = truth[torch.arange(44, 96, 48)] = 1.0
    x = -1.0 + 0.1 * torch.randn(4, 128, 96, generator=generator)
    x[:, 40:60] += 1.5 * truth
    network.train()
    optimiser = torch.optim.AdamW(network.parameter_groups(0.02, 0.0))
    target = truth.expand(4, 4, 96)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(x), target).backward()
        optimiser.step()
    logits = network.eval()(x)
    assert logits[target == 1].min() > logits[target == 0].max()


def without(cfg, key):
    return {name: value for name, value in cfg.items() if name != key}


BAD_CONTENT = {
    "no cfg": ({"cfg": None}, "has no 'cfg' and 'model'"),
    "no model": ({"model": 3}, "has no 'cfg' and 'model'"),
    "cfg without a key": ({"cfg": without(CFG, "deep_norm")}, "deep_norm: Field required"),
    "unknown activation": ({"cfg": CFG | {"activation_fn": "glu"}}, "activation_fn: "),
    "heads that do not divide": ({"cfg": CFG | {"encoder_attention_heads": 5}}, "do not fit its cfg"),
    "another size": ({"cfg": CFG | {"encoder_ffn_embed_dim": 65}}, "do not fit its cfg"),
    "another gate": ({"cfg": CFG | {"gru_rel_pos": False}}, "grep_a is too many"),
    "a weight less": ({"model": without(weights(CFG), "encoder.layers.1.fc1.bias")}, "layers.1.fc1.bias is missing"),
    "a weight that is none": ({"model": weights(CFG) | {"layer_norm.bias": "x"}}, "do not fit its cfg"),
}


@pytest.mark.parametrize("kind", BAD_CONTENT)
def test_a_checkpoint_that_is_not_beats_is_refused(tmp_path, kind):
    changes, message = BAD_CONTENT[kind]
    digest = write_checkpoint(tmp_path / "a.pt", **changes)
    with pytest.raises(DataError, match=message) as caught:
        build(tmp_path / "a.pt", digest)
    assert str(caught.value).startswith(f"{tmp_path / 'a.pt'}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_or_another_file_is_refused(tmp_path, checkpoint):
    with pytest.raises(DataError, match=r"none\.pt: cannot be read \(No such file"):
        build(tmp_path / "none.pt", "0" * 64)
    with pytest.raises(DataError, match="cannot be read"):
        build(tmp_path, "0" * 64)
    with pytest.raises(DataError, match=f"SHA-256 is {checkpoint[1]}, but .* is {'0' * 64}"):
        build(checkpoint[0], "0" * 64)


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    trap = tmp_path / "sprung"
    digest = write_checkpoint(tmp_path / "a.pt", extra=Trap(trap))
    with pytest.raises(DataError, match="no PyTorch file of plain values"):
        build(tmp_path / "a.pt", digest)
    (tmp_path / "b.pt").write_bytes(pickle.dumps("text"))
    with pytest.raises(DataError, match="SHA-256"):
        build(tmp_path / "b.pt", digest)
    assert not trap.exists()


def test_more_blocks_than_there_are_cannot_learn(checkpoint):
    with pytest.raises(DataError, match=r"has 3 blocks, but .*unfreeze_blocks is 4"):
        build(*checkpoint, unfreeze_blocks=4)


def test_without_speechbrain_the_extra_is_named(monkeypatch, checkpoint):
    monkeypatch.setitem(sys.modules, "speechbrain.lobes.models.beats", None)
    with pytest.raises(MissingPartError, match=r"pip install 'otus\[beats\]'"):
        build(*checkpoint)


def test_the_import_does_not_change_the_arithmetic_of_other_networks():
    found = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with _precision_kept():
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = (not value for value in found)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == found


def test_all_loaded_modules_can_still_be_looked_at(network):
    for module in list(sys.modules.values()):
        getattr(module, "__file__", None)
