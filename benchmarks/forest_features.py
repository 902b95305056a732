"""Which features help a forest: average precision of hits among candidates, by family of features.

    python benchmarks/forest_features.py --root AUDIO --model grouped-default RESULTS [RESULTS ...]

RESULTS are results folders of finished runs on one corpus (several seeds, say) and AUDIO the corpus' root. Candidates
are made anew from the stored frame scores, with one decoding for all (--threshold), so that there are many false
alarms; they come from recordings that the network was not trained on: those of the test sides, and with a single fold
also those of the validation side. A forest per label is fitted and judged by cross-validation over groups. Printed are
the mean over labels and results folders of its average precision, the mean gain over the alpaca features with its
standard error over these, and in how many of them it was a gain. The first two rows are no forests.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold

from otus.forest.candidates import CONTEXT_FAMILIES, SHAPE_NAMES, candidate_features, candidate_names
from otus.matching import Intervals, hits_in_order
from otus.score_shapes import score_shapes
from otus.selections import DecodingPoint, decode

IOU = 0.4


def candidates_of(results: Path, model: str, threshold: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the candidates of all folds with `group` and `hit`, and their score shapes."""
    splits = pd.read_parquet(results / "datasets" / model.partition("-")[0] / "splits.parquet")
    annotations = pd.read_parquet(results / "inventory" / "annotations.parquet")
    sides = ["test"] if splits["fold"].nunique() > 1 else ["test", "val"]
    parts = []
    for (fold, split), own in splits[splits["split"].isin(sides)].groupby(["fold", "split"]):
        for recording_id, hop_s, curves in scores_of(results / "scores" / model / f"fold{fold}", own):
            for label, (activity, onset) in curves.items():
                keys = {"recording_id": recording_id, "label": label}
                calls = annotations[(annotations[list(keys)] == pd.Series(keys)).all(axis=1)]
                parts.append(decoded(activity, onset, hop_s, calls, threshold).assign(**keys, fold=fold, split=split))
    whole = pd.concat(parts, ignore_index=True)
    whole["selection_id"] = [f"s{number:06d}" for number in range(len(whole))]
    group_of = splits.drop_duplicates("recording_id").set_index("recording_id")["group"]
    shapes = whole[["selection_id", *SHAPE_NAMES]]
    return whole.drop(columns=list(SHAPE_NAMES)).assign(group=whole["recording_id"].map(group_of)), shapes


def decoded(
    activity: np.ndarray, onset: np.ndarray, hop_s: float, calls: pd.DataFrame, threshold: float
) -> pd.DataFrame:
    """Return the candidates of one recording and label with `hit` and their score shapes."""
    point = DecodingPoint(
        off_threshold=threshold, onset_threshold=1.0, gap_s=0.0, smoothing_s=0.06, min_duration_s=0.05
    )
    found = decode(activity, onset, hop_s, point)
    truth = Intervals(calls["start_s"].to_numpy(float), calls["end_s"].to_numpy(float))
    order = np.argsort(-found.peak_score, kind="stable")
    columns = {name: getattr(found, name) for name in ("start_s", "end_s", "score", "peak_score")}
    hit = hits_in_order(truth, Intervals(found.start_s, found.end_s), order, IOU)
    return pd.DataFrame({**columns, "hit": hit, **score_shapes(activity, onset, hop_s, found)})


def scores_of(folder: Path, splits: pd.DataFrame) -> Iterator[tuple[str, float, dict[str, tuple[np.ndarray, ...]]]]:
    """Yield recording, frame hop in s, and (activity, onset) of every label."""
    paths = sorted(folder.glob("*.scores.parquet"))
    frames = pd.concat(pd.read_parquet(path) for path in paths).sort_values(["recording_id", "frame"])
    metadata = pq.read_schema(paths[0]).metadata
    wanted = frames[frames["recording_id"].isin(set(splits["recording_id"]))]
    for recording_id, rows in wanted.groupby("recording_id", observed=True):
        pairs = {c: (rows[c].to_numpy(), rows[f"onset:{c}"].to_numpy()) for c in json.loads(metadata[b"classes"])}
        yield str(recording_id), float(json.loads(metadata[b"frame_hop_s"])), pairs


def feature_sets() -> dict[str, list[str]]:
    """Return the sets of features that are compared, by name."""
    alpaca, everything = list(candidate_names("alpaca", 13)), list(candidate_names("all", 13))
    sets = {"alpaca": alpaca}
    sets |= {f"alpaca + {family}": [*alpaca, *names] for family, names in CONTEXT_FAMILIES.items()}
    sets |= {"all": everything}
    sets |= {f"all - {family}": [n for n in everything if n not in names] for family, names in CONTEXT_FAMILIES.items()}
    sets |= {"all but MFCC": [n for n in everything if "mfcc" not in n]}
    sets |= {"score shape alone": list(CONTEXT_FAMILIES["score shape"])}
    return sets


def judged(features: np.ndarray, hit: np.ndarray, group: np.ndarray, seeds: int) -> float:
    """Return the average precision of forests that were fitted on other groups; mean over seeds of the forest."""
    n_folds, precisions = min(5, len(np.unique(group))), []
    for seed in range(seeds):
        probability = np.zeros(len(hit))
        for fit, judge in GroupKFold(n_folds, shuffle=True, random_state=seed).split(features, hit, group):
            forest = RandomForestClassifier(300, min_samples_leaf=2, class_weight="balanced", random_state=seed)
            probability[judge] = forest.fit(features[fit], hit[fit]).predict_proba(features[judge])[:, 1]
        precisions.append(average_precision_score(hit, probability))
    return float(np.mean(precisions))


def main() -> None:
    """Fit, judge and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="root of the corpus' audio")
    parser.add_argument("--model", default="grouped-default")
    parser.add_argument("--threshold", type=float, default=0.2, help="probability above which a candidate lasts")
    parser.add_argument("--seeds", type=int, default=2, help="forests per label and results folder")
    arguments = parser.parse_args()
    rows: dict[str, list[float]] = {}
    for results in arguments.results:
        card = json.loads(next((results / "models" / arguments.model).glob("*/card.json")).read_text())["frontend"]
        candidates, shapes = candidates_of(results, arguments.model, arguments.threshold)
        recordings = pd.read_parquet(results / "inventory" / "recordings.parquet")
        band = {"window_s": card["n_fft"] / card["sample_rate"], "low_hz": card["low_hz"], "high_hz": card["high_hz"]}
        table = candidate_features(arguments.root, candidates, shapes, recordings, features="all", n_mfcc=13, **band)
        for label, part in candidates.groupby("label"):
            hit, group = part["hit"].to_numpy(bool), part["group"].to_numpy(str)
            print(
                f"{results} {label}: {len(hit)} candidates, {hit.sum()} hits, {len(np.unique(group))} groups",
                flush=True,
            )
            for name in ("peak_score", "score"):
                rows.setdefault(f"by {name} alone", []).append(average_precision_score(hit, part[name]))
            for name, columns in feature_sets().items():
                features = table.loc[part.index, columns].to_numpy()
                rows.setdefault(name, []).append(judged(features, hit, group, arguments.seeds))
    print(f"\nscikit-learn {sklearn.__version__}, IoU {IOU}, candidates above {arguments.threshold}")
    print("| features | number | average precision | gain over alpaca | better in |\n|---|---|---|---|---|")
    sizes = {name: len(columns) for name, columns in feature_sets().items()}
    for name, values in rows.items():
        gain = np.array(values) - rows["alpaca"]
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
        better = f"{(gain > 0).sum()} of {len(gain)}"
        print(
            f"| {name} | {sizes.get(name, 1)} | {np.mean(values):.3f} | {gain.mean():+.3f} ± {error:.3f} | {better} |"
        )


if __name__ == "__main__":
    main()
