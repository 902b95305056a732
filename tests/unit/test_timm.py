"""Image backbones from timm as networks that score frames."""

import copy
import hashlib
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from otus.config import TimmSettings
from otus.errors import DataError, MissingPartError
from otus.models import build_network, learnt_state
from otus.models.timm_backbone import TimmBackbone, _map_sizes

SMALL = "test_resnet"  # timm's own for tests: 0.4 million parameters


def build(backbone=SMALL, bands=40, **settings):
    torch.manual_seed(0)
    settings = TimmSettings(backbone=backbone, head_channels=16, **settings)
    network = build_network(settings, bands=bands, n_classes=2)
    assert isinstance(network, TimmBackbone)
    return network


@pytest.mark.parametrize("backbone", [SMALL, "test_convnext", "test_efficientnet", "test_nfnet", "test_mambaout"])
@pytest.mark.parametrize(("bands", "frames"), [(8, 1), (40, 100), (128, 64)])
def test_every_frame_gets_its_logits(backbone, bands, frames):
    network = build(backbone, bands)
    assert network.eval()(torch.randn(2, bands, frames)).shape == (2, 4, frames)
    assert network.block_frames % 32 == (network.block_frames + 2 * network.context_frames) % 32 == 0


def test_all_of_it_learns_and_is_stored():
    network = build().train()
    network(torch.randn(4, 40, 64)).square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert set(learnt_state(network)) == set(network.state_dict())


def test_building_draws_the_same_weights_from_the_same_seed_and_leaves_training_on():
    first, second = build(), build()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(module.training for module in first.modules())


def test_a_copy_gives_the_same_logits():
    network = build().eval()
    x = torch.randn(2, 40, 70)
    assert torch.equal(copy.deepcopy(network)(x), network(x))


def test_short_calls_are_placed():
    generator = torch.Generator().manual_seed(1)
    truth = torch.zeros(96)
    truth[[5, 6, 7, 30, 31, 32, 77, 78, 79]] = 1.0
    x = torch.randn(4, 40, 96, generator=generator)
    x[:, 10:20] += 5.0 * truth
    network = build().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.005)
    target = truth.expand(4, 4, 96)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(x), target).backward()
        optimiser.step()
    logits = network(x)
    assert logits[target == 1].min() > logits[target == 0].max()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What timm publishes for a backbone: three colours and a classifier."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("timm") / "small.safetensors"
    tensors = timm.create_model(SMALL).state_dict()
    save_file(tensors, path)
    return path, tensors


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_from_a_file_are_those_of_the_backbone(published):
    path, tensors = published
    network = build(weights=str(path), sha256=digest(path))
    loaded = network.backbone.state_dict()
    grey = [name for name, value in loaded.items() if value.shape != tensors[name].shape]
    assert grey == ["conv1.0.weight"]
    torch.testing.assert_close(loaded[grey[0]], tensors[grey[0]].sum(dim=1, keepdim=True))
    assert all(torch.equal(value, tensors[name]) for name, value in loaded.items() if name not in grey)
    assert not torch.equal(build().backbone.state_dict()["layer1.0.conv1.weight"], loaded["layer1.0.conv1.weight"])


def test_a_file_of_weights_that_does_not_fit_is_refused(tmp_path, published):
    path, tensors = published
    with pytest.raises(DataError, match=r"none\.safetensors: cannot be read \(No such file"):
        build(weights=str(tmp_path / "none.safetensors"), sha256="0" * 64)
    with pytest.raises(DataError, match=f"SHA-256 is {digest(path)}, but .* is {'0' * 64}"):
        build(weights=str(path), sha256="0" * 64)
    less = tmp_path / "less.safetensors"
    save_file({name: value for name, value in tensors.items() if name != "layer2.0.conv1.weight"}, less)
    with pytest.raises(DataError, match=r"lacks 1 weights .* such as layer2\.0\.conv1\.weight"):
        build(weights=str(less), sha256=digest(less))
    with pytest.raises(DataError, match="lacks"):
        build("test_efficientnet", weights=str(path), sha256=digest(path))
    wide = tmp_path / "wide.safetensors"
    save_file(tensors | {"layer2.0.conv1.weight": torch.zeros(3, 3)}, wide)
    with pytest.raises(DataError, match=r"wide\.safetensors: does not fit .* size mismatch"):
        build(weights=str(wide), sha256=digest(wide))
    text = tmp_path / "text.safetensors"
    text.write_text("weights")
    with pytest.raises(DataError, match="is no safetensors file"):
        build(weights=str(text), sha256=digest(text))
    renamed = tmp_path / "small.bin"
    renamed.write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"rename it"):
        build(weights=str(renamed), sha256=digest(renamed))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet81", r"has no 'resnet81'; did you mean 'resnet18'\?"),
        ("hf-hub:timm/resnet18.a1_in1k", "has no 'hf-hub:"),
        ("resnet18.nowhere", "Invalid pretrained tag"),
        ("vit_tiny_patch16_224", "doesn't match model"),
        ("test_maxvit", "cannot be used"),
    ],
)
def test_backbones_that_cannot_be_used_are_refused(backbone, message):
    with pytest.raises(DataError, match=message) as caught:
        build(backbone)
    assert str(caught.value).startswith("training.<name>.timm.backbone: ")
    assert "\n" not in str(caught.value)


class Odd(nn.Module):
    """A backbone whose map has its frequencies where time should be."""

    feature_info = timm.models.FeatureInfo([{"num_chs": 1, "reduction": 1, "module": "x"}], out_indices=(0,))

    def forward(self, image):
        return [image.transpose(2, 3)]


def test_a_backbone_with_maps_that_are_not_understood_is_refused():
    with pytest.raises(DataError, match="its maps are not channels x frequency x time"):
        _map_sizes(Odd(), 40, "odd")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPartError, match=r"pip install 'otus\[timm\]'"):
        build()
