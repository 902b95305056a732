import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from tests.unit import exports_tables as made

from otus.exports import export_model
from otus.exports.alpaca import known_features, tape_stems, variant_tag
from otus.exports.old_evaluator import COLUMNS, TAPE_COLUMNS, evaluate_tapes
from otus.forest.features import FEATURE_NAMES
from otus.tables import table

NAMES = [*FEATURE_NAMES, "peak_position", "hour_of_day"]
AT = "2025-08-22T08:04:13Z"
STEMS = {"a__tape.23": "a__tape.23", "b__tape.23": "b__tape.23", "quiet": "quiet", "x_1": "x_1"}


def exported(**changes):
    tables = {"plain": made.layer("cnn"), "filtered": made.layer("cnn+rf"), "features": made.features(NAMES)}
    tables |= {"annotations": made.annotations(), "recordings": made.recordings(), **changes}
    return export_model(
        **tables,
        splits=made.splits(),
        decodings=made.decodings(),
        root=Path("/tapes"),
        labels=made.LABELS,
        hearing=made.HEARING,
        forests="forest/grouped-crnn/forests",
        generated_at=AT,
    )


@pytest.fixture(scope="module")
def files():
    return exported()


def index(files, stage):
    return json.loads(files[f"alpaca/{stage}/index.json"])


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("values", "tag"),
    [
        ((0.4, 0.05, 0.9), "len400_hop050_th90"),
        ((0.5, 0.05, 0.29), "len500_hop050_th29"),
        ((0.5, 0.05, 0.57), "len500_hop050_th57"),
        ((1.28, 0.005, 0.07), "len1280_hop005_th07"),
        ((0.0, 0.0, 1.0), "len000_hop000_th100"),
    ],
)
def test_tags_are_rounded_not_cut(values, tag):
    assert variant_tag(*values) == tag


def tapes_of(*paths):
    ids = [re.sub(r"\W", "_", path.rpartition(".")[0].replace("/", "__")) for path in paths]
    ids = [f"{name}{number}" for number, name in enumerate(ids)]
    return list(tape_stems(pd.DataFrame({"recording_id": ids, "path": list(paths)})).values())


def test_a_tape_keeps_its_dots_and_its_clip_times():
    assert tapes_of("UNKN_20250203_05.23.wav", "x/T.wav_0_60.wav", "x/T.wav_60_120.wav", "y/a b.flac") == [
        "UNKN_20250203_05.23",
        "T.wav_0_60",
        "T.wav_60_120",
        "a b",
    ]


def test_tapes_of_one_name_whatever_the_case_go_by_their_ids():
    assert tapes_of("a/t.wav", "b/T.flac", "u.wav") == ["a__t0", "b__T1", "u"]
    assert tapes_of("a/t.wav", "b/t.wav", "a__t0.wav") == ["a__t0", "b__t1", "a__t02"], "a stem that is another's id"


@pytest.mark.parametrize("name", ["a:b", "a\\b", "a\nb", "x" * 230, "a?", "a\x7f"])
def test_a_name_that_cannot_be_part_of_a_file_name_is_replaced_by_the_id(name):
    found = tape_stems(pd.DataFrame({"recording_id": ["id"], "path": [f"{name}.wav"]}))
    assert found == {"id": "id"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("aAbB_.ß/:"), min_size=1, max_size=5), max_size=6, unique=True))
def test_tapes_are_unique_and_stay_in_their_folder(paths):
    ids = [f"a_b{number}" for number in range(len(paths))]
    found = tape_stems(pd.DataFrame({"recording_id": ids, "path": [f"{path}.wav" for path in paths]}, dtype=str))
    assert list(found) == ids
    assert len({stem.casefold() for stem in found.values()}) == len(paths)
    assert not any(re.search(r"[/:\\]", stem) for stem in found.values())


def test_there_are_the_files_that_the_scripts_look_for(files):
    name = "{}_predict_output.log.annotation.result"
    expected = {"evaluation/index.json", "postrf/index.json", "metrics.csv", "metrics_per_tape.csv"}
    for stem in STEMS.values():
        expected |= {f"{stage}/annotations/{name.format(stem)}.txt" for stage in ("evaluation", "postrf")}
        expected.add(f"postrf/features_py/{name.format(stem)}.features_all.csv")
    assert {path.removeprefix("alpaca/") for path in files if path.startswith("alpaca/")} == expected


def test_a_result_table_of_the_evaluation(files):
    text = files["alpaca/evaluation/annotations/a__tape.23_predict_output.log.annotation.result.txt"]
    assert text.splitlines() == [
        "Selection\tView\tChannel\tBegin time (s)\tEnd time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSound type\tComments\t"
        "CNN logit (mean)",
        "1\tSpectrogram_1\t1\t1.1\t2.0\t100\t6000\thum\t\t1.5",
        "2\tSpectrogram_1\t1\t4.0\t4.5\t100\t6000\thum\t\t0.5",
        "3\tSpectrogram_1\t1\t8.0\t8.4\t100\t6000\thum\t\t-0.5",
    ]


def test_a_result_table_behind_the_forest(files):
    text = files["alpaca/postrf/annotations/a__tape.23_predict_output.log.annotation.result.txt"]
    assert text.splitlines() == [
        "Selection\tView\tChannel\tBegin time (s)\tEnd time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tCNN logit (mean)\t"
        "Sound type\tComments",
        "1\tSpectrogram_1\t1\t1.1\t2.0\t100\t6000\t1.5\thum\trf_prob=0.800000",
        "2\tSpectrogram_1\t1\t5.0\t5.9\t100\t6000\t-2.0\thum\trf_prob=0.900000",
        "3\tSpectrogram_1\t1\t8.0\t8.4\t100\t6000\t-0.5\thum\trf_prob=0.700000",
    ]


def test_a_tape_without_selections_has_the_header_alone(files):
    for stage in ("evaluation", "postrf"):
        text = files[f"alpaca/{stage}/annotations/quiet_predict_output.log.annotation.result.txt"]
        assert text.count("\n") == 1 and text.startswith("Selection\t")


def test_a_single_target_is_called_target():
    plain, filtered = made.layer("cnn"), made.layer("cnn+rf")
    hums = [
        replace(tables, **{n: getattr(tables, n)[getattr(tables, n)["label"] == "hum"] for n in vars(tables)})
        for tables in (plain, filtered)
    ]
    found = export_model(
        *hums,
        made.features(NAMES),
        made.recordings(),
        made.annotations(),
        made.splits(),
        made.decodings(),
        root=Path("/tapes"),
        labels=["hum"],
        hearing=made.HEARING,
        forests="f",
        generated_at=AT,
    )
    text = found["alpaca/evaluation/annotations/b__tape.23_predict_output.log.annotation.result.txt"]
    assert text.splitlines()[1] == "1\tSpectrogram_1\t1\t2.25\t2.9\t100\t4000\ttarget\t\t2.0"


@pytest.mark.parametrize("stage", ["evaluation", "postrf"])
def test_their_index_builder_finds_in_the_tables_what_is_in_the_index(files, stage):
    """The builder reads rows by a regular expression and takes the tape from the name of the file."""
    found = []
    for path in sorted(path for path in files if path.startswith(f"alpaca/{stage}/annotations/")):
        tape = path.rpartition("/")[2].partition("_predict_output")[0] + ".wav"
        for line in files[path].splitlines():
            if row := re.match(r"^\d+\tSpectrogram_\d+\t1\t(\d+\.\d+)\t(\d+\.\d+)\t", line):
                times = round(float(row[1]), 3), round(float(row[2]), 3)
                found.append((path.removeprefix("alpaca/"), tape, *times, round(times[1] - times[0], 3)))
    entries = index(files, stage)["entries"]
    assert [(e["pred_path"], e["tape"], e["start_s"], e["end_s"], e["dur_s"]) for e in entries] == found
    assert [e["uid"] for e in entries] == list(range(1, len(found) + 1)) and found


def test_where_a_fold_has_no_forest_the_others_keep_the_probabilities_of_theirs():
    tables = made.layer("cnn+rf")
    own = tables.selections
    alone = own["rf_probability"].where(own["fold"] == 1, 1 / (1 + np.exp(-own["peak_score"].astype(float))))
    found = exported(filtered=replace(tables, selections=own.assign(rf_probability=alone)))
    entries = index(found, "postrf")["entries"]
    assert [entry["rf_prob"] for entry in entries] == [0.8, 0.9, 0.7, 0.982014]
    text = found["alpaca/postrf/annotations/a__tape.23_predict_output.log.annotation.result.txt"]
    assert re.findall(r"rf_prob=(.*)", text) == ["0.800000", "0.900000", "0.700000"]


def test_the_heads_of_the_indexes(files):
    before, behind = index(files, "evaluation"), index(files, "postrf")
    assert before["meta"] == {"generated_at": AT, "n_preds": 5}
    assert list(before["entries"][0]) == ["uid", "pred_path", "tape", "start_s", "end_s", "dur_s"]
    assert behind["meta"] == {
        "generated_at": AT,
        "rf_model": "forest/grouped-crnn/forests",
        "features": "all",
        "rf_threshold": 0.375,
        "n_entries": 4,
        "stft": {"n_fft": 2048, "hop": 1024},
        "mfcc": {"n_mfcc": 13, "include_deltas": True},
    }
    assert list(behind["entries"][0]) == [*before["entries"][0], "rf_prob"]
    assert [entry["rf_prob"] for entry in behind["entries"]] == [0.8, 0.9, 0.7, 0.6]


def test_features_have_their_columns_and_the_numbers_of_the_evaluation(files):
    text = files["alpaca/postrf/features_py/a__tape.23_predict_output.log.annotation.result.features_all.csv"]
    rows = read_csv(text)
    assert list(rows[0]) == ["wave_file", "selection", *FEATURE_NAMES]
    assert [(row["selection"], float(row["mfcc1_mean"])) for row in rows] == [
        ("1", 0.0),
        ("2", 1.0),
        ("3", 2.0),
        ("4", 3.0),  # only the forest kept it: behind those of the evaluation
    ]
    assert {row["wave_file"] for row in rows} == {"a__tape.23.wav"}
    empty = files["alpaca/postrf/features_py/x_1_predict_output.log.annotation.result.features_all.csv"]
    assert empty == ",".join(["wave_file", "selection", *FEATURE_NAMES]) + "\n", "no candidate, no features"


def test_features_are_known_by_name_whatever_the_number_of_mfcc():
    some = ["mfcc2_mean", "selection_id", "Dur 90% (s)", "mfcc1_mean", "own", "cnn_logit_mean"]
    assert known_features(some) == ["cnn_logit_mean", "Dur 90% (s)", "mfcc1_mean", "mfcc2_mean"]
    assert known_features(["own"]) == []


def old_metrics(truth, found, threshold):
    """The evaluator of the alpaca pipelines as it is described: (tape, start, end[, quality]) to its numbers."""

    def iou(a, b):
        hull = max(a[1], b[1]) - min(a[0], b[0])
        return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / hull if hull else 0.0

    pairs, tapes = [], sorted({row[0] for row in truth} | {row[0] for row in found})
    counts = {}
    for tape in tapes:
        calls = sorted((row[1:] for row in truth if row[0] == tape), key=lambda row: row[0])
        free = sorted((row[1:] for row in found if row[0] == tape), key=lambda row: row[0])
        counts[tape] = (len(calls), len(free), calls, [])
        for call in calls:
            best = max(free, key=lambda row, call=call: iou(call, row), default=None)
            if best is not None and iou(call, best) >= threshold:
                free.remove(best)
                counts[tape][3].append((call, best))
        pairs += counts[tape][3]
    everything = [row[1:] for row in truth]

    def numbers(calls, n_found, pairs):
        tp, n = len(pairs), len(calls)
        p, r = (tp / whole if whole else 0.0 for whole in (n_found, n))
        row = {"n_gt": n, "n_pred": n_found, "tp": tp, "fp": n_found - tp, "fn": n - tp, "precision": p, "recall": r}
        row["f1"] = 2 * p * r / (p + r) if p + r else 0.0
        for name, i in (("mean_dstart_ms", 0), ("mean_dend_ms", 1)):
            row[name] = 1000 * float(np.mean([abs(c[i] - f[i]) for c, f in pairs])) if pairs else math.nan
        for q in (1, 2, 3):
            own, hit = sum(c[2] == q for c in calls), sum(c[2] == q for c, _ in pairs)
            false = tp - hit
            row[f"recall_q{q}"] = hit / own if own else math.nan
            precision = hit / (hit + false) if hit + false else 0.0
            both = precision + (hit / own if own else 0.0)
            row[f"f1_q{q}"] = math.nan if not own else 2 * precision * (hit / own) / both if both else 0.0
        return row

    total = numbers(everything, len(found), pairs)
    heard = [(n, m) for n, m, *_ in counts.values() if n]
    some = len(heard) > 1 and all(len(set(column)) > 1 for column in zip(*heard, strict=True))
    total["pearson_calls"] = pearsonr(*zip(*heard, strict=True))[0] if some else math.nan
    total["spearman_calls"] = spearmanr(*zip(*heard, strict=True))[0] if some else math.nan
    return total, {tape: numbers(calls, m, own) for tape, (_, m, calls, own) in counts.items()}


intervals = st.tuples(st.sampled_from("uvwxy"), st.integers(0, 40), st.integers(1, 12)).map(
    lambda row: (row[0], row[1] / 4, (row[1] + row[2]) / 4)
)
calls = st.tuples(intervals, st.sampled_from([1, 2, 3, 4, math.nan])).map(lambda row: (*row[0], row[1]))


def frame(rows, names=("tape", "start_s", "end_s", "quality")):
    return pd.DataFrame(rows, columns=list(names)).assign(label="hum")


def agree(ours, theirs):
    assert set(ours) == set(theirs)
    assert all(made.same(float(ours[name]), float(theirs[name])) for name in ours), (ours, theirs)


@settings(max_examples=80, deadline=None)
@given(st.lists(calls, max_size=25), st.lists(intervals, max_size=25), st.sampled_from([0.2, 0.4, 0.5, 1.0]))
def test_the_numbers_are_those_of_the_old_evaluator(truth, found, iou):
    total, per_tape = evaluate_tapes(frame(truth), frame(found, ("tape", "start_s", "end_s")), iou)
    theirs, their_tapes = old_metrics(truth, found, iou)
    assert list(total) == list(COLUMNS) and list(per_tape) == sorted(their_tapes)
    agree(total, theirs)
    for tape, row in per_tape.items():
        assert list(row) == list(TAPE_COLUMNS)
        agree(row, their_tapes[tape])


def test_nothing_at_all_is_zeros():
    total, per_tape = evaluate_tapes(frame([]), frame([], ("tape", "start_s", "end_s")), 0.4)
    assert per_tape == {}
    assert all(total[name] == 0 for name in TAPE_COLUMNS[:8])
    assert all(math.isnan(total[name]) for name in COLUMNS[8:])


def test_a_case_counted_by_hand():
    truth = [("u", 0.0, 1.0, 1), ("u", 2.0, 3.0, 2), ("v", 0.0, 1.0, 2), ("w", 5.0, 6.0, 3)]
    found = [("u", 0.1, 1.0), ("u", 2.0, 2.8), ("v", 0.0, 0.3), ("v", 4.0, 5.0), ("z", 1.0, 2.0)]
    total, per_tape = evaluate_tapes(frame(truth), frame(found, ("tape", "start_s", "end_s")), 0.4)
    assert [total[name] for name in ("n_gt", "n_pred", "tp", "fp", "fn")] == [4, 5, 2, 3, 2]
    assert total["precision"] == 0.4 and total["recall"] == 0.5 and total["f1"] == pytest.approx(4 / 9)
    assert total["mean_dstart_ms"] == pytest.approx(50) and total["mean_dend_ms"] == pytest.approx(100)
    assert [total[f"recall_q{q}"] for q in (1, 2, 3)] == [1.0, 0.5, 0.0]
    assert [total[f"f1_q{q}"] for q in (1, 2, 3)] == [pytest.approx(2 / 3), 0.5, 0.0]
    assert total["pearson_calls"] == pytest.approx(0.5) and total["spearman_calls"] == pytest.approx(0.5)
    assert list(per_tape) == ["u", "v", "w", "z"] and per_tape["z"]["n_pred"] == 1
    assert math.isnan(per_tape["z"]["recall_q1"]) and per_tape["z"]["f1"] == 0.0


def test_a_call_of_another_label_is_no_hit():
    truth = frame([("u", 0.0, 1.0, 1)]).assign(label="howl")
    found = frame([("u", 0.0, 1.0)], ("tape", "start_s", "end_s"))
    assert evaluate_tapes(truth, found, 0.4)[0]["tp"] == 0
    assert evaluate_tapes(truth.assign(label="hum"), found, 0.4)[0]["tp"] == 1


@pytest.mark.parametrize("stage", ["evaluation", "postrf"])
def test_the_metrics_are_what_their_evaluator_gets_from_the_index(files, stage):
    """Labels apart, which it does not know: here no call is hit by a selection of another one."""
    tapes = {recording_id: f"{stem}.wav" for recording_id, stem in STEMS.items()}
    qualities = {"3": 3, "Q1": 1, "2.0": 2, None: math.nan}
    truth = [
        (tapes[row[1]], round(row[2], 3), round(row[3], 3), qualities[row[7]])
        for row in made.CALLS
        if row[1] in tapes and row[6] == "hum"
    ]
    found = [(e["tape"], e["start_s"], e["end_s"]) for e in index(files, stage)["entries"]]
    total, per_tape = old_metrics(truth, found, 0.4)
    howls = {"n_gt": 1, "fn": 1}  # a3, which nothing hit
    row = next(row for row in read_csv(files["alpaca/metrics.csv"]) if row["layer"] == stage)
    assert list(row) == [*COLUMNS, "model", "variant", "layer"]
    assert (row["model"], row["variant"]) == ("grouped-crnn", "len450_hop050_th55")
    for name in ("n_gt", "n_pred", "tp", "fp", "fn"):
        assert int(row[name]) == total[name] + howls.get(name, 0)
    for name in ("mean_dstart_ms", "mean_dend_ms", "recall_q1", "recall_q2", "recall_q3", "f1_q1", "f1_q2", "f1_q3"):
        assert float(row[name]) == pytest.approx(total[name])
    rows = {r["tape"]: r for r in read_csv(files["alpaca/metrics_per_tape.csv"]) if r["layer"] == stage}
    assert list(rows["a__tape.23.wav"]) == [*TAPE_COLUMNS, "tape", "model", "variant", "layer"]
    assert list(rows) == sorted(per_tape)
    assert int(rows["b__tape.23.wav"]["tp"]) == 1 and "quiet.wav" not in rows


def test_a_greedy_match_is_less_than_the_best_one():
    truth = frame([("u", 4.0, 14.0, 1), ("u", 0.0, 10.0, 1)])
    found = frame([("u", 0.0, 10.0), ("u", 0.0, 6.0)], ("tape", "start_s", "end_s"))
    assert evaluate_tapes(truth, found, 0.4)[0]["tp"] == 1


def test_layers_that_found_nothing_are_zeros():
    plain, filtered = made.layer("cnn"), made.layer("cnn+rf")
    empty = [
        replace(tables, selections=tables.selections.iloc[:0], matches=tables.matches.iloc[:0])
        for tables in (plain, filtered)
    ]
    found = exported(plain=empty[0], filtered=empty[1])
    assert index(found, "evaluation") == {"meta": {"generated_at": AT, "n_preds": 0}, "entries": []}
    rows = read_csv(found["alpaca/metrics.csv"])
    assert [(row["n_gt"], row["n_pred"], row["precision"], row["mean_dstart_ms"]) for row in rows] == [
        ("4", "0", "0.0", "")
    ] * 2


def test_the_same_tables_give_the_same_files_whatever_their_order(files):
    mixed = {
        name: replace(tables, selections=tables.selections.iloc[::-1], matches=tables.matches.iloc[::-1])
        for name, tables in (("plain", made.layer("cnn")), ("filtered", made.layer("cnn+rf")))
    }
    turned = {"recordings": made.recordings().iloc[::-1], "annotations": made.annotations().iloc[::-1]}
    assert exported(**mixed, **turned, features=made.features(NAMES).iloc[::-1]) == files


def test_nothing_of_another_side_is_exported(files):
    assert not any("never" in path for path in files)
    val = made.layer("cnn")
    rows = val.selections.iloc[:1].assign(split="val", selection_id="v1", recording_id="never")
    more = replace(val, selections=table("selections", pd.concat([val.selections, rows])))
    assert exported(plain=more) == files
