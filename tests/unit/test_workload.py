import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.config import Config, NetworkSettings, TrainingSettings
from otus.models import build_network
from otus.resources import workload
from otus.resources.corpus_size import CorpusSize
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
    base = loads(sized(), "train_model", **training(cuts_per_epoch=200)).work
    assert loads(sized(), "train_model", **training(cuts_per_epoch=200, members=4)).work == pytest.approx(
        2 * base, rel=0.1
    )
    assert loads(sized(), "train_model", **training(cuts_per_epoch=200, epochs=60)).work > 1.8 * base
    assert loads(sized(), "train_model", **training(cuts_per_epoch=20_000)).work > 2 * base
    assert loads(sized(), "train_model", **training(cuts_per_epoch=200, network={"channels": 32})).work > 1.5 * base


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


def test_a_shorter_hop_is_more_work_for_the_network():
    slow = loads(sized(), "predict_shard", **training(frontend={"hop_s": 0.02})).work
    fast = loads(sized(), "predict_shard", **training(frontend={"hop_s": 0.002})).work
    assert fast > 5 * slow


def test_more_folds_are_more_decodings():
    three, nine = (loads(sized(), "evaluate_model", split={"folds": n}).work for n in (3, 9))
    assert nine == pytest.approx(3 * three, rel=0.3)


def test_the_model_of_a_job_is_told_by_its_wildcards():
    models = {"training": {"small": {"members": 1}, "large": {"members": 9}}}
    small, large = (
        loads(sized(), "predict_shard", {"dataset": "grouped", "training": name}, **models)
        for name in ("small", "large")
    )
    assert large.work > 4 * small.work


def test_the_cost_of_a_network_follows_its_multiplications():
    from torch.utils.flop_counter import FlopCounterMode

    counted = []
    for shape, bands in ((NetworkSettings(), 64), (NetworkSettings(channels=24, frequency_blocks=3), 96)):
        network = build_network("dense_resnet", bands=bands, n_classes=1, settings=shape).eval()
        with FlopCounterMode(display=False) as flops, torch.inference_mode():
            network(torch.zeros(1, bands, 500))
        counted.append(flops.get_total_flops() / 2 / 500 / workload._multiplications(shape, bands))
    assert counted == pytest.approx([1.0, 1.0], rel=0.05)


def test_small_corpora_have_as_many_cuts_as_in_training():
    assert cuts._FEWEST_CUTS == workload._FEWEST_CUTS
    assert cuts._BLOCK_SAMPLES == workload._BLOCK_SAMPLES
    clips = [cuts.ClipPosition(0, 0, 1, True)] * 600
    assert cuts.cuts_per_epoch(clips, TrainingSettings()) == 1000


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
    assert found.disk_mb("train_model", {}) > 0
    assert found.disk_mb("no_such_rule", {}) == 0
