import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otus import dense, frontend
from otus.config import Config, CrnnSettings, DenseResnetSettings, Resnet18Settings, TcnSettings, TrainingSettings
from otus.inference import reading, steps
from otus.models import build_network
from otus.models.beats import Beats
from otus.models.resnet18 import Resnet18
from otus.models.timm_backbone import TimmBackbone
from otus.resources import job_facts, networks, workload
from otus.resources.corpus_size import CorpusSize
from otus.resources.networks import network_cost
from otus.resources.workload import WORK_UNITS, Load, Workload
from otus.training import cuts


def sized(hours=10.0, **more):
    facts = {
        "recordings": round(60 * hours),
        "hours": hours,
        "labelled_hours": hours,
        "longest_h": 1 / 60,
        "sample_rate": 48_000,
        "rows": round(120 * hours),
        "calls": round(100 * hours),
        "short_call_s": 0.06,
        "counted": True,
    }
    return CorpusSize(**{**facts, **more})


def loads(size, rule, wildcards=None, **config):
    values = {"corpus": {"root": "r", "targets": ["hum"]}, "split": {"folds": 5}, **config}
    found = Workload(Config.model_validate(values))
    found.size = lambda: size
    return found.load(rule, wildcards or {})


def training(**settings):
    return {"training": {"dense": settings}}


GROWING = [rule for rule in WORK_UNITS if rule not in ("make_demo_corpus", "build_soundscapes")]


@pytest.mark.parametrize("rule", GROWING)
def test_more_audio_is_more_work_and_more_data(rule):
    small, large = loads(sized(10), rule), loads(sized(1000), rule)
    assert large.work > 2 * small.work > 0
    assert large.data_mb >= small.data_mb > 0
    assert large.read_h >= small.read_h


@given(
    hours=st.floats(0, 1e5), calls=st.integers(0, 10**7), short_s=st.none() | st.floats(0, 1e4), folds=st.integers(3, 9)
)
@settings(max_examples=30)
@pytest.mark.parametrize("rule", WORK_UNITS)
def test_loads_are_finite_and_never_negative(rule, hours, calls, short_s, folds):
    size = sized(hours, calls=calls, rows=calls, short_call_s=short_s, longest_h=hours)
    load = loads(size, rule, split={"folds": folds})
    assert all(math.isfinite(value) and value >= 0 for value in (load.work, load.read_h, load.data_mb))


def test_a_rule_that_nobody_knows_has_no_load():
    assert loads(sized(), "detect_calls") == Load(0.0, 0.0, 0.0)


def test_training_grows_with_members_epochs_cuts_and_the_network():
    def work(**changes):
        return loads(sized(), "train_model", **training(**{"cuts_per_epoch": 200, "epochs": 30, **changes})).work

    assert work(members=4) == pytest.approx(2 * work(), rel=0.1)
    assert work(epochs=60) > 1.8 * work()
    assert work(cuts_per_epoch=20_000) > 2 * work()
    assert work(tcn={"channels": [32, 64, 96]}) > 1.5 * work()
    assert work(validate_every=10) < 0.5 * work()
    dense = {"architecture": "dense_resnet", "cuts_per_epoch": 20_000}
    assert work(**dense, objective="clip", clip_s=0.1) < 0.6 * work(**dense)
    assert work(epochs=None) > work(epochs=5), "as many batches as a training needs"
    assert work(epochs=None, cuts_per_epoch=20_000) == work(epochs=5, cuts_per_epoch=20_000)


def test_a_checkpoint_taken_as_it_is_is_only_validated():
    taken = {"architecture": "resnet18", "resnet18": {"checkpoint": "a.pk"}}
    none, one, two = (loads(sized(), "train_model", **training(epochs=n, **taken)).work for n in (0, 1, 2))
    assert 0 < none < one
    assert two - one == pytest.approx(one - none), "an epoch takes every clip once"
    assert loads(sized(), "train_model", **training(epochs=2, cuts_per_epoch=10**9, **taken)).work == two
    assert loads(sized(), "train_model", **training(epochs=2, cuts_per_epoch=9, **taken)).work < two


def test_a_balanced_training_is_planned_for_the_most_cuts_that_it_may_take(monkeypatch):
    monkeypatch.setattr(workload, "corpus_size", lambda inventory, settings: sized(calls=10**6))

    def planned(balance, targets):
        config = {"corpus": {"root": "r", "targets": list(targets)}, "training": {"m": {"balance": balance}}}
        return workload._learnt_from(Workload(Config.model_validate(config))._job({"training": "m"}))[0]

    plain = planned("none", "a")
    assert planned("labels", "a") == plain
    assert planned("labels", "ab") == pytest.approx(2 * plain, rel=1e-4)
    assert planned("labels", "abcdefg") == planned("groups", "a") == planned("both", "a")
    assert planned("groups", "a") == pytest.approx(4 * plain, rel=1e-4)


BEATS = {"checkpoint": "b.pt", "sha256": "0" * 64}


def test_every_architecture_has_its_cost():
    sections = {
        "tcn": {},
        "crnn": {},
        "dense_resnet": {},
        "resnet18": {},
        "beats": BEATS,
        "timm": {"backbone": "resnet18"},
    }
    found = {}
    for name, section in sections.items():
        hop = {} if name in ("beats", "resnet18") else {"frontend": {"hop_s": 0.01}}  # these have hops of their own
        model = training(architecture=name, **{name: section}, **hop)
        found[name] = loads(sized(), "predict_shard", **model)
    assert found["beats"].work > found["timm"].work > found["dense_resnet"].work
    assert found["resnet18"].work > 10 * found["dense_resnet"].work, "every window anew"
    assert found["beats"].data_mb > found["dense_resnet"].data_mb + 500, "two networks of 90 M weights"
    frozen, learning = (
        loads(sized(), "train_model", **training(architecture="beats", beats=BEATS | {"unfreeze_blocks": n}))
        for n in (0, 2)
    )
    assert learning.work > frozen.work
    assert learning.data_mb > frozen.data_mb + 100


def test_the_fixed_memory_of_a_training_holds_the_reference_at_the_usual_batch():
    usual = {"architecture": "dense_resnet", "frontend": {"hop_s": 0.01}}
    default, larger = (loads(sized(), "train_model", **training(**usual, batch_size=n)).data_mb for n in (16, 64))
    frame_mb = networks.network_cost(TrainingSettings(architecture="dense_resnet"), 1).values * 4 / 2**20
    assert larger - default == pytest.approx(48 * 256 * frame_mb * workload._HELD_LEARNING)
    small = {"cache_mb": 0, "dense_resnet": {"channels": 4}}
    assert loads(sized(), "train_model", **training(**usual, **small)).data_mb < default


def test_training_keeps_no_more_than_the_cache_and_reads_the_rest_again():
    cached, beyond = (loads(sized(100), "train_model", **training(cache_mb=mb)) for mb in (100_000, 1000))
    assert cached.data_mb > beyond.data_mb + 1000
    assert cached.read_h < 200 < beyond.read_h
    assert beyond.work > cached.work


def test_one_long_recording_takes_no_more_memory_than_its_block():
    for rule in ("train_model", "predict_shard"):
        short, long = loads(sized(10), rule), loads(sized(10, longest_h=10.0), rule)
        assert short.data_mb <= long.data_mb < short.data_mb + 200


def test_shards_share_out_prediction():
    one, ten = (loads(sized(), "predict_shard", chunking={"shards": n}).work for n in (1, 10))
    assert one == pytest.approx(10 * ten)


def test_all_folds_are_scored_in_one_job_that_reads_every_recording_once():
    fold, *more = (loads(sized(), "predict_shard", split={"folds": n, "val_fraction": 0.25}) for n in (None, 5, 10))
    for folds, load in zip((5, 10), more, strict=True):
        assert load.read_h == 10, "recordings of a minute: their band medians come from what is scored"
        assert load.work == pytest.approx(fold.work * folds * min(1, 2 / folds) / 0.4), "val and test of each fold"
    assert fold.read_h < 10
    long = loads(sized(recordings=2, longest_h=5.0), "predict_shard", split={"folds": 5})
    assert 10 < long.read_h < 11


def test_more_readers_hold_more_samples():
    one, four = (loads(sized(), "predict_shard", prediction={"readers": n}).data_mb for n in (1, 4))
    assert four - one == pytest.approx(6 * 60 * 48_000 * 6 / 2**20)


def test_a_shorter_hop_is_more_work_for_the_network():
    slow = loads(sized(), "predict_shard", **training(frontend={"hop_s": 0.02})).work
    fast = loads(sized(), "predict_shard", **training(frontend={"hop_s": 0.002})).work
    assert fast > 5 * slow


def test_every_recording_is_decoded_as_test_and_as_validation_whatever_the_folds_and_once_per_decoding():
    three, nine = (loads(sized(), "evaluate_model", split={"folds": n}).work for n in (3, 9))
    assert nine == pytest.approx(three)
    one, five = (
        loads(sized(), "evaluate_model", evaluation={"decoding": {"preset": "alpaca", "off_thresholds": offs}}).work
        for offs in ([0.5], [0.1, 0.3, 0.5, 0.7, 0.9])
    )
    assert five == pytest.approx(3 * one), "and once more with the chosen one"


def test_measuring_grows_with_the_calls_and_merging_with_models_and_points():
    few, many = (loads(sized(calls=n), "measure_model").work for n in (1000, 10_000))
    assert many == pytest.approx(10 * few)

    def merged(**values):
        return loads(sized(), "merge_metrics", **values).work

    assert merged(training={"a": {}, "b": {}}) == pytest.approx(2 * merged())
    points = {"evaluation": {"thresholds": [0.5], "decoding": {"gaps": [0.0]}}}
    assert merged(**points) < merged(), "fewer points, fewer rows of metrics"
    assert loads(sized(), "measure_model", **points).work == loads(sized(), "measure_model").work


def test_the_model_of_a_job_is_told_by_its_wildcards():
    models = {"training": {"small": {"members": 1}, "large": {"members": 9}}}
    small, large = (
        loads(sized(), "predict_shard", {"dataset": "grouped", "training": name}, **models)
        for name in ("small", "large")
    )
    assert large.work > 3 * small.work


def counted(network, example, steps):
    """Multiplications and values of a step, by hooks on the layers themselves; and the weights."""
    multiplications = values = 0

    def count(layer, inputs, output):
        nonlocal multiplications, values
        if isinstance(layer, torch.nn.GRU):
            multiplications += inputs[0].shape[1] * 2 * 3 * layer.hidden_size * (layer.input_size + layer.hidden_size)
            values += output[0].numel()
        elif hasattr(layer, "weight") and layer.weight.dim() > 1:
            multiplications += output.numel() * layer.weight[0].numel()
            values += output.numel()

    for layer in network.modules():
        layer.register_forward_hook(count)
    with torch.inference_mode():
        network.eval()(example)
    return multiplications / steps, values / steps, sum(p.numel() for p in network.parameters())


def cost(settings, bands, classes):
    section = next(
        name
        for name in ("tcn", "crnn", "dense_resnet", "resnet18")
        if type(getattr(TrainingSettings(), name)) is type(settings)
    )
    model = {"architecture": section, section: settings, "frontend": {"bands": bands}}
    return network_cost(TrainingSettings.model_validate(model), classes)


@pytest.mark.parametrize(
    ("settings", "bands", "classes"),
    [
        (TcnSettings(), 64, 1),
        (TcnSettings(channels=[8, 12, 16, 20], temporal_channels=24, dilations=[1, 3]), 41, 3),
        (CrnnSettings(), 64, 1),
        (CrnnSettings(channels=[8, 12], dilations=[1], recurrent_channels=0), 37, 3),
        (CrnnSettings(channels=[8, 8, 8, 8], temporal_channels=20, recurrent_channels=9), 96, 2),
        (DenseResnetSettings(), 64, 1),
        (DenseResnetSettings(channels=24, frequency_blocks=3, dilations=[1, 3]), 97, 4),
    ],
)
def test_the_cost_of_a_network_that_scores_frames_is_exact(settings, bands, classes):
    network = build_network(settings, bands=bands, n_classes=classes)
    found = cost(settings, bands, classes)
    assert (found.multiplications, found.values, found.weights) == counted(network, torch.zeros(1, bands, 64), 64)
    assert found.learnt == found.weights
    assert found.context == network.context_frames
    assert found.block == (network.block_frames or dense._MOST_FRAMES)
    assert found.recurrent == (network.block_frames is not None)


@pytest.mark.parametrize("pool", [0, 1, 2])
@pytest.mark.parametrize(("spectra", "bins"), [(18, 128), (7, 61)])
def test_the_cost_of_a_network_that_scores_windows_is_exact(pool, spectra, bins):
    settings = Resnet18Settings(max_pool=pool, bins=bins, window_s=(2048 + (spectra - 0.5) * 1024) / 48000)
    network = Resnet18(settings, n_outputs=3)
    found = cost(settings, 64, 2)
    assert (found.multiplications, found.values, found.weights) == counted(network, torch.zeros(1, 1, spectra, bins), 1)


def test_a_window_of_animal_spot_takes_what_others_have_measured():
    assert 2 * cost(Resnet18Settings(), 64, 1).multiplications == pytest.approx(0.811e9, rel=1e-3)


def test_what_is_repeated_here_is_as_elsewhere():
    assert cuts._FEWEST_CUTS == workload._FEWEST_CUTS
    assert cuts._MOST_CUTS_PER_CALL == workload._MOST_CUTS_PER_CALL
    assert cuts._BLOCK_SAMPLES == workload._BLOCK_SAMPLES
    clips = [cuts.ClipPosition(0, 0, 1, 0)] * 600
    settings = TrainingSettings()
    plan = cuts.CutPlan(settings.cuts_per_epoch, settings.batch_size, settings.cut_frames, settings.target_share)
    assert cuts.n_cuts(clips, plan) == 1000
    assert frontend._PROFILE_FRAMES == job_facts.PROFILE_FRAMES
    assert steps._PIECE_SAMPLES == workload._PIECE_SAMPLES
    assert reading._AHEAD == 2
    assert (Beats.block_frames, Beats.context_frames) == (networks._BEATS_BLOCK, networks._BEATS_CONTEXT)
    assert (TimmBackbone.block_frames, TimmBackbone.context_frames) == (networks._TIMM_BLOCK, networks._TIMM_CONTEXT)


def test_the_size_is_looked_up_once_and_again_after_the_inventory(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(workload, "corpus_size", lambda inventory, settings: seen.append(inventory) or sized())
    config = {"corpus": {"root": "r", "targets": ["hum"]}, "results_dir": str(tmp_path)}
    found = Workload(Config.model_validate(config))
    assert not seen  # nothing is looked at before somebody asks
    for rule in WORK_UNITS:
        found.load(rule, {})
    assert len(seen) == 1
    table = tmp_path / "inventory" / "recordings.csv"
    table.parent.mkdir()
    table.write_text("")
    found.load("train_model", {}), found.load("train_model", {})
    assert len(seen) == 2
    os.utime(table, (1, 1))
    found.load("train_model", {})
    assert len(seen) == 3


def test_devices_and_threads_are_those_of_the_config():
    values = {
        "corpus": {"root": "r", "targets": ["hum"]},
        "training": {"a": {"device": "cpu", "threads": 4}, "b": {"device": "cuda"}},
        "prediction": {"device": "auto", "threads": 3},
    }
    found = Workload(Config.model_validate(values))
    assert [found.device("train_model", {"training": t}) for t in "ab"] == ["cpu", "cuda"]
    assert (found.device("predict_shard", {}), found.device("merge_metrics", {})) == ("auto", "cpu")
    assert [found.threads("train_model", {"training": t}) for t in "ab"] == [4, 1]
    assert (found.threads("predict_shard", {}), found.threads("merge_metrics", {})) == (3, 1)


def test_disk_is_never_less_than_what_scores_take():
    values = {"corpus": {"root": "r", "targets": ["hum", "bark"]}, **training(frontend={"hop_s": 0.01})}
    found = Workload(Config.model_validate(values))
    found.size = lambda: sized(10)
    scored_h = 10 * (0.2 + 0.8 * 0.25)
    assert found.disk_mb("predict_shard", {}) == pytest.approx(scored_h * 360_000 * 2 * 6 / 2**20)
    ten = Workload(Config.model_validate({**values, "split": {"folds": 10}}))
    ten.size = found.size
    assert ten.disk_mb("predict_shard", {}) == pytest.approx(10 * 2 * 360_000 * 2 * 6 / 2**20), "a fifth of 10 h each"
    assert found.disk_mb("train_model", {}) > 0
    assert found.disk_mb("no_such_rule", {}) == 0


def test_detectors_of_others_have_their_own_threads_and_device_and_the_forest_behind_them_a_load():
    command = {"runner": "command", "command": ["detect", "{input}", "{output}"]}
    values = {"corpus": {"root": "r", "targets": ["hum"]}, "external": {"a": {**command, "gpu": True, "threads": 3}}}
    found = Workload(Config.model_validate(values))
    found.size = lambda: sized(10)
    toy = {"external": "a", "shard": "1"}
    assert (found.device("run_external", toy), found.threads("run_external", toy)) == ("cuda", 3)
    network = found.load("filter_selections", {"dataset": "grouped", "training": "default"})
    assert found.load("filter_selections", {"dataset": "grouped", "training": "a"}) == network
    assert {"a", "grouped-a"} <= found.names()
