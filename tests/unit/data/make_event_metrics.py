"""Make mir_eval.json, sed_eval.json and psds_eval.json: what independent packages say of the corpora of event_cases.py.

Each part needs an environment of its own, with Python 3.11; in tests/unit:
    pip install mir_eval==0.8.2 sed_eval==0.2.1 'setuptools<81'; python data/make_event_metrics.py mir_eval sed_eval
    pip install psds-eval==0.5.3 numpy==1.26.4 pandas==2.3.3; python data/make_event_metrics.py psds_eval
"""

import json
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from event_cases import LABELS, SCORES, corpus, matching_case  # noqa: E402


def mir_eval():
    """Sizes of maximum matchings at IoU >= t, of 3,000 recordings."""
    from mir_eval.util import _bipartite_match

    def overlap(a, b):
        shared = min(a[1], b[1]) - max(a[0], b[0])
        return shared / (max(a[1], b[1]) - min(a[0], b[0]))

    sizes = []
    for seed in range(3000):
        annotations, selections, iou = matching_case(seed)
        graph = {
            s: [a for a in range(len(annotations)) if overlap(annotations[a], selections[s]) >= iou]
            for s in range(len(selections))
        }
        sizes.append(len(_bipartite_match(graph)))
    return sizes


def sed_eval():
    """Counts and F measures of eight corpora at three thresholds: events by collar, and segments of a second."""
    import sed_eval as package

    rows = []
    for seed in range(8):
        for threshold in (0.0, 0.3, 0.6):
            metrics = {
                f"collar0.2_{name}": package.sound_event.EventBasedMetrics(
                    list(LABELS), evaluate_offset=pct is not None, t_collar=0.2, percentage_of_length=pct or 0.5
                )
                for name, pct in (("onset", None), ("offset0.5", 0.5), ("offset0.2", 0.2))
            }
            metrics["segment1"] = package.sound_event.SegmentBasedMetrics(list(LABELS), time_resolution=1.0)
            for name, duration_s, calls, found in corpus(seed):
                truth = [{"file": name, "onset": s, "offset": e, "event_label": c} for s, e, c in calls]
                result = [
                    {"file": name, "onset": s, "offset": e, "event_label": c} for s, e, c, p in found if p >= threshold
                ]
                for kind, metric in metrics.items():
                    length = {"evaluated_length_seconds": duration_s} if kind == "segment1" else {}
                    metric.evaluate(truth, result, **length)
            for kind, metric in metrics.items():
                by_class = {
                    label: [int(metric.class_wise[label][key]) for key in ("Ntp", "Nsys", "Nref")] for label in LABELS
                }
                f1 = metric.overall_f_measure()["f_measure"]
                rows.append({"seed": seed, "threshold": threshold, "kind": kind, "counts": by_class, "f1": float(f1)})
    return rows


def psds_eval():
    """The score of twelve corpora, with the operating points at every distinct score, in several settings."""
    import pandas as pd
    from psds_eval import PSDSEval

    warnings.simplefilter("ignore")
    columns = ["filename", "onset", "offset", "event_label"]
    rows = []
    for seed in range(12):
        material = corpus(seed)
        truth = pd.DataFrame([(n, s, e, c) for n, _, calls, _ in material for s, e, c in calls], columns=columns)
        lengths = pd.DataFrame([(n, d) for n, d, _, _ in material], columns=["filename", "duration"])
        for dtc, gtc, cttc, settings in (
            (0.7, 0.7, 0.3, [(0.0, 0.0, 100.0), (0.0, 1.0, 100.0), (0.5, 1.0, 2000.0), (0.0, 1.0, 2000.0)]),
            (0.1, 0.1, 0.3, [(0.5, 1.0, 100.0), (0.5, 0.0, 800.0), (0.5, 1.0, 5000.0)]),
        ):
            metric = PSDSEval(dtc, gtc, cttc, ground_truth=truth, metadata=lengths)
            for score in SCORES:
                found = [(n, s, e, c) for n, _, _, events in material for s, e, c, p in events if p >= score]
                metric.add_operating_point(pd.DataFrame(found, columns=columns))
            for alpha_ct, alpha_st, highest in settings:
                value = metric.psds(alpha_ct=alpha_ct, alpha_st=alpha_st, max_efpr=highest).value
                rows.append([seed, dtc, gtc, cttc, alpha_ct, alpha_st, highest, float(value)])
    return rows


for package in sys.argv[1:]:
    values = {"mir_eval": mir_eval, "sed_eval": sed_eval, "psds_eval": psds_eval}[package]()
    rows = [json.dumps(row) for row in values]
    text = ",".join(rows) if package == "mir_eval" else ",\n".join(rows)
    (HERE / f"{package}.json").write_text(f"[{text}]\n")
    print(package, len(values))
