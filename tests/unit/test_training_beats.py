"""Learning with a BEATs in two stages: kept tokens, unfreezing, what is stored, resuming."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import timm
import torch
from beats_checkpoint import write_checkpoint
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from training_corpus import CPU, after, clip_row, make_corpus, make_tables, never, plus, weights

from otus.audio import sha256
from otus.config import AugmentationSettings, BeatsSettings, OptimisationSettings, TimmSettings, TrainingSettings
from otus.dense import FrameRange, score_stretch
from otus.errors import DataError
from otus.frontend import beats_frontend
from otus.models.beats import Beats, beats_ensemble
from otus.models.card import load_card, load_model, save_model
from otus.report.model_card import _origin
from otus.stopping import StoppedError
from otus.training import loop, train_fold
from otus.training.beats import TokenObjective, TokenStore, learning_from_beats
from otus.training.cuts import ClipPosition, CutPlan, FeatureStore, drawn_cuts
from otus.training.frames import FrameObjective, learning_from_frames
from otus.training.material import read_material
from otus.training.stage import _card, _Task
from otus.training.validation import score_store

#: Much shorter than the real ones: recordings of 6 s have five blocks, and transformers are slow.
BLOCK, CONTEXT = 128, 32


@pytest.fixture(scope="module", autouse=True)
def small_and_single():
    """Short blocks; one thread, as networks as small as these are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Beats, "block_frames", BLOCK)
        patch.setattr(Beats, "context_frames", CONTEXT)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def corpus(folder):
    return make_corpus(folder)


@pytest.fixture(scope="module")
def tables(corpus):
    """The tables of a fold, with a noise clip in every train recording."""
    return plus(make_tables(corpus), clips=[clip_row(f"t{i}", 4.4, 5.6, "noise") for i in range(3)])


@pytest.fixture(scope="module")
def checkpoint(folder):
    return {"checkpoint": str(folder / "small.pt"), "sha256": write_checkpoint(folder / "small.pt")}


@pytest.fixture
def how(checkpoint):
    """Makes the settings of a training from the keys of `beats`, and others."""

    def settings(more=None, **beats):
        usual = {"epochs": 2, "cuts_per_epoch": 12, "batch_size": 4, "members": 1, "precision": "fp32"}
        section = BeatsSettings(**checkpoint, **{"head_channels": 16, "unfreeze_epochs": 2, **beats})
        return TrainingSettings(architecture="beats", beats=section, **(usual | (more or {})))

    return settings


@pytest.fixture
def learn(corpus, folder, tables):
    """Makes what a network of these settings learns from."""

    def learning(settings):
        material = read_material(folder, tables, ["hum"])
        return learning_from_beats(material, tables.clips, ["hum"], settings, iou=0.4, device=CPU)

    return learning


@pytest.fixture
def train(corpus, folder, tables, tmp_path):
    """Trains a fold."""

    def fold(settings, *, resume=tmp_path / "resume", stop=never):
        lines = []
        trained = train_fold(
            folder,
            tables,
            model="m",
            fold=1,
            targets=["hum"],
            settings=settings,
            iou=0.4,
            seed=3,
            resume_folder=resume,
            stop=stop,
            progress=lines.append,
        )
        return trained, lines

    return fold


@pytest.fixture
def judged(monkeypatch):
    """Lets validations find what a test wants: one number in stage 1, another one in stage 2."""

    def script(first, second):
        def found(_objective, network):
            return {"detection": second if isinstance(network, Beats) and not network.is_frozen else first}

        monkeypatch.setattr(TokenObjective, "judge", found)
        monkeypatch.setattr(FrameObjective, "judge", found)

    return script


def encoder_of(network):
    return {name: value.clone() for name, value in network.encoder.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# Stage 1: the head learns from kept tokens


def test_the_head_learns_a_tone_and_every_block_is_encoded_once(how, train, monkeypatch):
    heard, real = [], Beats.encode
    monkeypatch.setattr(Beats, "encode", lambda self, x: heard.extend(row.sum().item() for row in x) or real(self, x))
    trained, lines = train(how({"epochs": 6, "members": 2, "cuts_per_epoch": 24}))
    assert trained.validation["f1"] == 1.0, "of both networks together, without kept tokens"
    for member in (1, 2):
        losses = [r["loss"] for r in trained.records if r["member"] == member]
        assert losses[-1] < 0.6 * losses[0]
        assert "stage" not in trained.records[0]
    blocks = 5 * 5
    assert len(heard) <= blocks + 2 * 5, "each block of five recordings once, and at last those of val once more"
    assert len(set(heard)) > 15
    assert "through the encoder in small.pt" in lines[0]
    assert (trained.card.inference, trained.card.context_frames, trained.card.best_stages) == ("blocks", CONTEXT, None)


@examples(max_examples=60, deadline=None)
@given(
    n_frames=st.integers(1, 700),
    clip=st.tuples(st.integers(0, 699), st.integers(1, 400)),
    length=st.integers(1, 200),
    seed=st.integers(0, 3),
)
def test_cuts_on_the_grid_are_the_blocks_that_the_clip_reaches_into(n_frames, clip, length, seed):
    class Lengths:
        def n_frames(self, index):
            return n_frames

    first = min(clip[0], n_frames - 1)
    end = min(first + clip[1], n_frames + 1)  # rounding may put the end of a clip behind the last frame
    plan = CutPlan(40, 8, length, 1.0, on_grid=True)
    drawn = drawn_cuts(Lengths(), [ClipPosition(0, first, end, 0)], plan, np.random.default_rng(seed))
    starts = {start for batch in drawn for _, start in batch}
    frames = range(first, min(max(end, first + 1), n_frames))
    expected = {frame // length * length for frame in frames}
    assert starts <= expected
    assert len(expected) > 3 or starts == expected


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_kept_tokens_teach_the_same_as_the_encoder(how, learn, precision):
    objective = learn(how()).objective
    assert isinstance(objective, TokenObjective)
    network = learn(how()).new_network().eval()
    (batch, *_) = objective.batches(5, 0)
    assert batch.tokens.dtype == torch.float16
    assert batch.features.shape == (4, 128, BLOCK + 2 * CONTEXT) and batch.activity.shape == (4, 1, BLOCK)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        kept, found = objective.loss(network, batch), FrameObjective.loss(objective, network, batch)
    assert kept.dtype == torch.float32 and kept.isfinite()
    torch.testing.assert_close(kept, found, rtol=2e-3 if precision == torch.float32 else 0.02, atol=0)
    assert objective.vary(batch, torch.Generator()) is batch


def test_scores_from_kept_tokens_are_those_of_prediction(how, learn):
    learning = learn(how())
    network, objective = learning.new_network().eval(), learning.objective
    for index in range(2):
        expected = score_store(network, objective.material.val, index)
        for _ in range(2):  # made, and kept
            found = objective._scores(network, index)
            assert found.shape == expected.shape == (2, 600)
            np.testing.assert_allclose(found, expected, atol=5e-3)


def test_no_bit_of_the_tokens_depends_on_what_fits_into_memory(how, learn):
    objective = learn(how()).objective
    seen = []
    for budget in (0, 10**8, 30_000):
        store = objective._train_tokens = TokenStore(objective._train_tokens._encoder, budget)
        seen.append(torch.cat([batch.tokens for seed in (1, 2) for batch in objective.batches(seed, 0)]))
        skipped = torch.cat([batch.tokens for batch in objective.batches(2, 2)])
        assert torch.equal(skipped, seen[-1][-4:]), "the first batches are drawn, not read"
        assert (len(store._kept) > 3) == (budget == 10**8) and (len(store._kept) == 0) == (budget == 0)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


def test_kept_tokens_stay_within_the_memory(how, learn):
    learning = learn(how({"cache_mb": 1}))
    list(learning.objective.batches(1, 0))
    learning.objective._scores(learning.new_network().eval(), 0)
    stores = learning.objective._train_tokens, learning.objective._val_tokens
    size = [sum(t.untyped_storage().nbytes() for t in store._kept.values()) for store in stores]
    assert 0 < size[0] <= 0.75 * 2**20 and 0 < size[1] <= 0.25 * 2**20


def test_what_lies_in_the_margin_of_a_cut_does_not_count(how, learn):
    for cache_tokens in (True, False):
        objective = learn(how(cache_tokens=cache_tokens)).objective
        batch = next(iter(objective.batches(1, 0)))
        logits = torch.randn(4, 2, BLOCK + 2 * CONTEXT, requires_grad=True)
        objective.loss_of(logits, batch).backward()
        counts = logits.grad.abs().sum(dim=1) > 0
        assert not counts[:, :CONTEXT].any() and not counts[:, -CONTEXT:].any()
        assert torch.equal(counts[:, CONTEXT:-CONTEXT], batch.valid > 0)


def test_without_kept_tokens_cuts_are_augmented_and_lie_anywhere(how, train, learn):
    settings = how({"epochs": 3}, cache_tokens=False)
    objective = learn(settings).objective
    assert type(objective) is FrameObjective and not objective.plan.on_grid
    batch = next(iter(objective.batches(1, 0)))
    varied = objective.vary(batch, torch.Generator().manual_seed(1))
    assert varied.features.shape == batch.features.shape and not torch.equal(varied.features, batch.features)
    losses = [r["loss"] for r in train(settings)[0].records]
    assert losses[-1] < losses[0]


# What is frozen is shared, and costs no memory


def held_for_backward(network, x):
    """Bytes that a loss keeps for its gradients."""
    held = {}

    def note(tensor):
        held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(x).sum()
    return sum(held.values())


def test_nothing_of_frozen_blocks_is_held_for_their_gradients(how, learn):
    network = learn(how()).new_network()
    x = torch.randn(4, 128, BLOCK + 2 * CONTEXT)
    head = held_for_backward(lambda x: network.forward_tokens(network.encode(x).detach(), x), x)
    frozen, one, three = (held_for_backward(network.unfrozen(n), x) for n in (0, 1, 3))
    assert head == frozen < one < three
    assert three - frozen > 2.5 * (one - frozen), "each block that learns costs about the same"


@pytest.mark.parametrize("blocks", [0, 2])
def test_averages_and_best_weights_share_what_is_frozen(how, learn, blocks):
    network = learn(how()).new_network().unfrozen(blocks)
    groups = network.parameter_groups(0.1, 0.001)
    state = loop._start(network, groups, how(), steps=10)
    assert len(state.networks()) == 3
    for name, parameter in network.named_parameters():
        copies = {id(dict(other.named_parameters())[name]) for other in state.networks()}
        assert len(copies) == (3 if parameter.requires_grad else 1)
    for other in state.networks():
        tables = {id(block.self_attn.relative_attention_bias.weight) for block in other.encoder.encoder.layers}
        assert len(tables) == 1


def test_every_group_rises_to_its_own_peak_and_falls(how, learn):
    network = learn(how()).new_network().unfrozen(1)
    for schedule, patience in (("cosine", {}), ("plateau", {"plateau_patience": 0})):
        settings = how({"optimisation": OptimisationSettings(schedule=schedule, **patience)})
        state = loop._start(network, network.parameter_groups(0.1, 0.001), settings, steps=10)
        rates = []
        for _ in range(10):
            rates.append([group["lr"] for group in state.optimiser.param_groups])
            state.optimiser.step()
            state.schedule.step(*([0.5] if schedule == "plateau" else []))
        head, blocks = np.array(rates).T
        np.testing.assert_allclose(head, 100 * blocks, rtol=1e-6)
        assert head.max() == pytest.approx(0.1) and head[-1] < 0.01


def test_all_networks_of_a_fold_share_one_encoder(how, learn):
    learning = learn(how())
    first, second = learning.new_network(), learning.new_network()
    assert first.encoder is second.encoder
    together = learning.together([first, second]).eval()
    x = torch.randn(2, 128, 64)
    torch.testing.assert_close(together(x), (first(x) + second(x)) / 2)
    assert not torch.equal(first(x), second(x))


def test_an_unfrozen_copy_leaves_the_network_that_it_was_made_from_alone(how, learn):
    network = learn(how()).new_network().eval()
    before, x = encoder_of(network), torch.randn(2, 128, 64)
    copied = network.unfrozen(2).eval()
    torch.testing.assert_close(copied(x), network(x))
    with torch.no_grad():
        for p in copied.parameters():
            if p.requires_grad:
                p.add_(1.0)
    assert equal(before, encoder_of(network)) and not equal(before, encoder_of(copied))
    assert network.is_frozen and not copied.is_frozen
    assert not any(p.requires_grad for p in network.encoder.parameters())


# Stage 2: the last blocks learn as well, if that is better


STAGE_2 = {"unfreeze_blocks": 1, "unfreeze_learning_rate": 1e-3}


@pytest.mark.parametrize(("found", "kept"), [(0.50, False), (0.505, False), (0.515, True), (1.0, True)])
def test_stage_2_is_kept_only_if_it_gains_enough(how, train, judged, checkpoint, tmp_path, found, kept):
    judged(0.5, found)
    trained, lines = train(how(**STAGE_2))
    assert (trained.card.best_stages, trained.card.best_epochs) == (([2], [4]) if kept else ([1], [2]))
    assert [(r["stage"], r["epoch"]) for r in trained.records] == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert lines[3].startswith("stage 2: epoch 1/2") and ("not kept" in lines[5]) != kept
    (network,) = trained.network.members
    fresh = Beats(bands=128, n_classes=1, settings=BeatsSettings(**checkpoint))
    changed = [name for name, value in encoder_of(network).items() if not torch.equal(value, encoder_of(fresh)[name])]
    assert {".".join(name.split(".")[:3]) for name in changed} == ({"encoder.layers.2"} if kept else set())
    assert not any("relative_attention_bias" in name for name in changed)
    if not kept:
        alone, _ = train(how(), resume=tmp_path / "alone")
        assert torch.equal(weights(alone), weights(trained)), "the network is that of stage 1"


def test_stage_2_begins_with_the_best_of_stage_1(how, train, monkeypatch):
    began, real = [], loop.train_model

    def noted(network, *rest, **named):
        began.append({name: value.clone() for name, value in network.state_dict().items()})
        trained = real(network, *rest, **named)
        began.append({name: value.clone() for name, value in trained.network.state_dict().items()})
        return trained

    monkeypatch.setattr("otus.training.stage.train_model", noted)
    train(how(**STAGE_2))
    assert equal(began[1], began[2]) and not equal(began[0], began[1])


def whole_of(train, settings, folder):
    trained, _ = train(settings, resume=folder)
    return weights(trained), trained.records, trained.card, trained.validation


# Three batches an epoch; a stop is asked for before every epoch and after every batch.
KINDS = {
    "kept tokens": ({}, {}),
    "no memory": ({"cache_mb": 0}, {}),
    "augmented": ({}, {"cache_tokens": False}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_stopped_again_and_again_in_both_stages_ends_the_same(how, train, judged, tmp_path, kind):
    judged(0.5, 0.6)
    settings = how(KINDS[kind][0], **STAGE_2, **KINDS[kind][1])
    expected = whole_of(train, settings, tmp_path / "whole")
    places = []
    for calls in itertools.cycle((3, 4, 2)):
        try:
            trained, _ = train(settings, stop=after(calls))
            break
        except StoppedError as error:
            places.append("stage2" in str(error))
    assert places == sorted(places) and places.count(False) >= 2 and places.count(True) >= 2
    found = weights(trained), trained.records, trained.card, trained.validation
    assert torch.equal(expected[0], found[0])
    assert expected[1:] == found[1:]
    assert trained.card.best_stages == [2]


def test_a_training_killed_in_either_stage_goes_on_from_what_is_on_the_disk(how, train, tmp_path, monkeypatch):
    """Batches 1 to 6 are those of stage 1, 7 to 12 those of stage 2."""
    settings = how(**STAGE_2, min_gain=0.0)
    expected = whole_of(train, settings, tmp_path / "whole")
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    real = loop._one_batch
    for killed_in in (2, 4, 8, 11):
        steps = itertools.count(1)

        def killed(*args, steps=steps, killed_in=killed_in):
            if next(steps) == killed_in:
                raise KeyboardInterrupt
            return real(*args)

        monkeypatch.setattr(loop, "_one_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings, resume=tmp_path / str(killed_in))
        monkeypatch.setattr(loop, "_one_batch", real)
        trained, lines = train(settings, resume=tmp_path / str(killed_in))
        assert any("stage 2: resuming after" in line for line in lines) == (killed_in > 6)
        assert torch.equal(expected[0], weights(trained)) and expected[1] == trained.records


# What is stored


def names_in(path):
    return set(load_file(path))


def test_nothing_of_a_frozen_encoder_is_stored_anywhere(how, train, tmp_path):
    trained, _ = train(how({"members": 2}))
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", trained.network, trained.card)
    stored = names_in(tmp_path / "m.safetensors")
    assert stored and not any("encoder" in name for name in stored)
    for member in (1, 2):
        content = (tmp_path / "resume" / f"member{member}.pt").read_bytes().partition(b"\n")[2]
        (tmp_path / "state.pt").write_bytes(content)
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        assert [name for network in state["networks"] for name in network if "encoder" in name] == []


def test_of_stage_2_the_blocks_that_learnt_are_stored(how, train, judged, tmp_path):
    judged(0.5, 0.6)
    trained, _ = train(how(**STAGE_2))
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", trained.network, trained.card)
    content = (tmp_path / "resume" / "member1_stage2.pt").read_bytes().partition(b"\n")[2]
    (tmp_path / "state.pt").write_bytes(content)
    networks = torch.load(tmp_path / "state.pt", weights_only=True)["networks"]
    for names in (names_in(tmp_path / "m.safetensors"), *networks):
        encoder = [name.removeprefix("members.0.") for name in names if "encoder" in name]
        assert encoder and all(name.startswith("encoder.encoder.layers.2.") for name in encoder)
        assert not any("relative_attention_bias" in name for name in encoder)


def scored(network, recording):
    """The logits of a stretch of a recording."""
    store = FeatureStore([recording], beats_frontend(), 10**8, CPU)
    frames = FrameRange(70, 400)
    return score_stretch(
        network, lambda a, b: store.read(0, a, b), frames, n_frames=store.n_frames(0), outside=store.frontend.outside
    )


@pytest.mark.parametrize("stages", [None, [1, 1], [1, 2], [2, 2]])
def test_a_stored_model_predicts_as_it_did(how, train, learn, corpus, tmp_path, stages):
    settings = how({"members": 2, "epochs": 1}, **(STAGE_2 if stages else {}))
    trained, _ = train(how({"members": 2, "epochs": 1}))
    members = list(trained.network.members)
    for i, stage in enumerate(stages or []):
        if stage == 2:
            members[i] = members[i].unfrozen(1)
            with torch.no_grad():
                for p in members[i].encoder.parameters():
                    if p.requires_grad:
                        p.mul_(1.01 + i)
    network = beats_ensemble(members).eval()
    card = dataclasses.replace(trained.card, best_stages=stages, network=settings.network.model_dump())
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", network, card)
    loaded, read = load_model(tmp_path / "m.safetensors", tmp_path / "card.json", CPU)
    assert (read, read.architecture) == (card, "beats")
    found, expected = scored(loaded, corpus[1][0]), scored(network, corpus[1][0])
    assert found.shape == (2, 330) and found.std() > 0
    np.testing.assert_array_equal(found, expected)
    one_encoder = len({id(member.encoder) for member in loaded.members}) == 1
    assert one_encoder == (stages in (None, [1, 1]))


def test_a_block_of_stage_2_that_is_missing_is_said(how, train, tmp_path):
    trained, _ = train(how({"epochs": 1}))
    network = dataclasses.asdict(trained.card)["network"] | {"unfreeze_blocks": 1}
    card = dataclasses.replace(trained.card, best_stages=[2], network=network)
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", trained.network, card)
    with pytest.raises(DataError, match="the weights do not fit the card"):
        load_model(tmp_path / "m.safetensors", tmp_path / "card.json", CPU)


def test_the_card_names_the_checkpoint_and_its_digest(how, train, tmp_path, checkpoint):
    trained, _ = train(how({"epochs": 1}))
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", trained.network, trained.card)
    card, _ = load_card(tmp_path / "card.json")
    assert {name: card.network[name] for name in checkpoint} == checkpoint
    assert card.frontend == beats_frontend()


def test_a_card_of_an_image_backbone_does_not_ask_for_its_file_of_weights_again(corpus, folder, tables, tmp_path):
    path = tmp_path / "backbone.safetensors"
    save_file(timm.create_model("test_resnet", in_chans=1, num_classes=0).state_dict(), path)
    timm_settings = TimmSettings(backbone="test_resnet", weights=str(path), sha256=sha256(path), head_channels=8)
    settings = TrainingSettings(architecture="timm", timm=timm_settings)
    material = read_material(folder, tables, ["hum"])
    learning = learning_from_frames(material, tables.clips, ["hum"], settings, iou=0.4, device=CPU)
    assert learning.network == TimmSettings(backbone="test_resnet", head_channels=8)
    network = learning.new_network()
    task = _Task("m", 1, ["hum"], settings, 1, tables.digest())
    card = _card(task, material, learning, [loop.TrainedModel(network, 1, {}, [])], network)
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", network, card)
    written = json.loads((tmp_path / "card.json").read_text())
    assert _origin(written).endswith("started from the file of weights backbone.safetensors."), "people are told still"


# What cannot be


def test_calls_above_what_a_beats_hears_are_refused(how, corpus, folder, tables):
    def learning(*high_hz):
        highs = list(itertools.islice(itertools.cycle(high_hz), len(tables.annotations)))
        changed = dataclasses.replace(tables, annotations=tables.annotations.assign(high_hz=highs))
        material = read_material(folder, changed, ["hum"])
        return learning_from_beats(material, tables.clips, ["hum"], how(), iou=0.4, device=CPU)

    assert learning(8000.0) and learning(np.nan) and learning(7000.0, 7000.0, 9000.0)
    with pytest.raises(DataError, match=r"half of the calls reach above 9000 Hz, .* above 8000 Hz; choose another"):
        learning(9000.0, np.nan)


def test_settings_that_a_beats_would_not_heed_are_refused(how):
    quiet = {"augmentation": AugmentationSettings(masks=0)}
    for more in ({"cut_frames": 100}, {"frontend": {"bands": 32}}, quiet, {"objective": "clip"}):
        with pytest.raises(ValidationError, match="beats"):
            how(more)
    assert how(quiet, cache_tokens=False) and how(quiet, unfreeze_blocks=1)
    again = TrainingSettings.model_validate(how(**STAGE_2).model_dump())
    assert again == how(**STAGE_2)
