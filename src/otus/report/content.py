"""What the report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from otus.config import EvaluationSettings
from otus.config.settings import ReportSettings
from otus.report.learning import History


@dataclass(frozen=True)
class ReportContent:
    """Everything that the report is made from; the tables are those of otus.tables, all models one below the other
    (`leakage`: all dataset variants). `forests` holds the forests.json of every model by its name, `noise` the
    noise.json of every dataset variant, `learning` the trainings of every model, `model_cards` the path of each model's
    card from the report; `by` is split.by of the config.

    `date` is printed as it is given. `window_s`, `low_hz` and `high_hz` set the spectrograms of the examples
    (None = 512 samples, 0 Hz, half the sample rate).
    """

    corpus: str
    corpus_root: Path
    date: str
    seed: int
    config_digest: str
    targets: tuple[str, ...]
    recordings: pd.DataFrame
    annotations: pd.DataFrame
    quarantine: pd.DataFrame
    metrics: pd.DataFrame
    metrics_per_recording: pd.DataFrame
    metrics_per_class: pd.DataFrame
    recall_at_rates: pd.DataFrame
    strata: pd.DataFrame
    differences: pd.DataFrame
    confusion: pd.DataFrame
    densities: pd.DataFrame
    importances: pd.DataFrame
    dependence: pd.DataFrame
    curves: pd.DataFrame
    matches: pd.DataFrame
    reliability: pd.DataFrame
    items: pd.DataFrame
    leakage: pd.DataFrame
    noise: Mapping[str, Mapping[str, Any]]
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    by: str = "group"
    forests: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    learning: Mapping[str, Sequence[History]] = field(default_factory=dict)
    model_cards: Mapping[str, str] = field(default_factory=dict)
    settings: ReportSettings = field(default_factory=ReportSettings)
    window_s: float | None = None
    low_hz: float | None = None
    high_hz: float | None = None
