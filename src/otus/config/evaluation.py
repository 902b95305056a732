"""Settings of evaluation: from scores to selections, the choice of the operating point, and what is measured."""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from otus.config.base import Fraction, Name, Positive, Settings, listed

Merge = Literal["hysteresis", "threshold", "union"]
Smoothing = Literal["mean", "median", "ema"]
Length = Annotated[float, Field(ge=0.0)]
Overlap = Annotated[float, Field(gt=0.0, le=1.0)]

_HYSTERESIS: list[Merge] = ["hysteresis"]
_MEAN: list[Smoothing] = ["mean"]
_AS_IT_IS: list[float | None] = [None]

#: Rows of the tables are told apart by numbers that differ by more than this share.
_AS_GOOD_AS_EQUAL = 1e-4

#: What the preset of that name stands for.
_ALPACA: dict[str, Any] = {
    "merge": "union",
    "windows_s": 0.4,
    "hops_s": 0.05,
    "off_thresholds": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
    "onset_thresholds": 1.0,
    "gaps": 0.0,
    "smoothing": 0.0,
    "smoothing_by": "mean",
    "min_duration": 0.0,
    "max_duration": None,
}


@dataclass(frozen=True)
class Decoding:
    """One combination of the grid, in the units of the config."""

    merge: Merge
    window_s: float | None
    hop_s: float | None
    off_threshold: float
    onset_threshold: float
    smoothing_by: Smoothing
    smoothing: float
    gap: float
    min_duration: float
    max_duration: float | None


class DecodingSettings(Settings):
    """The grid of decodings that validation chooses from: every combination of the values below.

    A single value stands for a list of one. Scores are probabilities here. The first value of each list is the usual
    one: another wins only if it is better by more than half a call is worth.
    """

    preset: Literal["alpaca"] | None = Field(
        None,
        description="alpaca: the grid of the ANIMAL-SPOT pipelines for alpacas: windows of 0.4 s every 0.05 s, "
        "thresholds from 0.1 to 0.9, union, nothing smoothed, closed, split or dropped. Keys that are given win.",
    )
    merge: Annotated[list[Merge], BeforeValidator(listed, json_schema_input_type=Merge | list[Merge])] = Field(
        default_factory=_HYSTERESIS.copy,
        min_length=1,
        description="How scores become selections. hysteresis: while the score stays above an off-threshold, if its "
        "peak reaches the on-threshold; threshold: while it stays above one threshold; union: all windows above one "
        "threshold, joined where they touch, as ANIMAL-SPOT does it.",
    )
    windows_s: Annotated[
        list[Positive | None], BeforeValidator(listed, json_schema_input_type=Positive | list[Positive | None] | None)
    ] = Field(
        default_factory=_AS_IT_IS.copy,
        min_length=1,
        description="Window lengths: the score of a window is the mean of its frames' scores (as logits); "
        "null = frames as they are.",
    )
    hops_s: Annotated[
        list[Positive | None], BeforeValidator(listed, json_schema_input_type=Positive | list[Positive | None] | None)
    ] = Field(
        default_factory=_AS_IT_IS.copy,
        min_length=1,
        description="Times from one window to the next; null = a window at every frame.",
    )
    off_thresholds: Annotated[
        list[Fraction], BeforeValidator(listed, json_schema_input_type=Fraction | list[Fraction])
    ] = Field(
        default_factory=lambda: [0.3, 0.1, 0.5],
        min_length=1,
        description="A selection lasts while the smoothed score stays above this; for `threshold` and `union` the "
        "thresholds to choose from.",
    )
    onset_thresholds: Annotated[
        list[Fraction], BeforeValidator(listed, json_schema_input_type=Fraction | list[Fraction])
    ] = Field(
        default_factory=lambda: [1.0, 0.3],
        min_length=1,
        description="An onset peak above this starts a new selection inside a running one; 1 = never.",
    )
    gaps: Annotated[list[Length], BeforeValidator(listed, json_schema_input_type=Length | list[Length])] = Field(
        default_factory=lambda: [0.0, 0.25],
        min_length=1,
        description="Selections closer than this are merged, in units of the median training call.",
    )
    smoothing: Annotated[list[Length], BeforeValidator(listed, json_schema_input_type=Length | list[Length])] = Field(
        default_factory=lambda: [0.1],
        min_length=1,
        description="Width over which scores are smoothed, in units of the median training call; 0 = not at all.",
    )
    smoothing_by: Annotated[
        list[Smoothing], BeforeValidator(listed, json_schema_input_type=Smoothing | list[Smoothing])
    ] = Field(
        default_factory=_MEAN.copy,
        min_length=1,
        description="mean: of the scores (as logits) over the width; median: over the width; ema: exponential weights "
        "to both sides, spread as widely as those of the mean.",
    )
    min_duration: Annotated[list[Length], BeforeValidator(listed, json_schema_input_type=Length | list[Length])] = (
        Field(
            default_factory=lambda: [0.5],
            min_length=1,
            description="Shortest selection, in units of the 5 % quantile of training calls.",
        )
    )
    max_duration: Annotated[
        list[Positive | None], BeforeValidator(listed, json_schema_input_type=Positive | list[Positive | None] | None)
    ] = Field(
        default_factory=_AS_IT_IS.copy,
        min_length=1,
        description="Longest selection, in units of the median training call; longer ones are dropped; null = any.",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_stands_behind(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "alpaca":
            return {**_ALPACA, **values}
        return values

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> "DecodingSettings":
        windows = [window for window in self.windows_s if window is not None]
        hops = [hop for hop in self.hops_s if hop is not None]
        if hops and not windows:
            raise ValueError("hops_s leads from one window to the next, and there is none; give windows_s as well")
        if hops and max(hops) > min(windows):
            raise ValueError(
                f"hops_s: {max(hops):g} is longer than the window {min(windows):g}, so that calls between windows "
                "would be lost; make it shorter"
            )
        if self.smoothing_by != _MEAN and not any(self.smoothing):
            raise ValueError("smoothing_by tells how, but smoothing is 0; set smoothing, or drop smoothing_by")
        return self

    def combinations(self) -> list[Decoding]:
        """Return every combination once, in the order of the lists; a hop goes with windows only."""
        steps = [(w, h) for w in self.windows_s for h in (self.hops_s if w is not None else _AS_IT_IS)]
        smoothing = [(by, width) for width in self.smoothing for by in (self.smoothing_by if width > 0 else _MEAN)]
        lists = (self.merge, steps, self.off_thresholds, self.onset_thresholds, self.gaps, smoothing)
        return list(
            dict.fromkeys(
                Decoding(merge, *step, off, onset, *smooth, gap, shortest, longest)
                for merge, step, off, onset, gap, smooth, shortest, longest in itertools.product(
                    *lists, self.min_duration, self.max_duration
                )
            )
        )


class ChoiceSettings(Settings):
    """What makes one operating point better than another on validation."""

    by: Literal["f1", "recall", "cost"] = Field(
        "f1",
        description="f1: the best F1; recall: the best recall that keeps false_alarms_per_hour; cost: the least cost "
        "of misses and false alarms.",
    )
    false_alarms_per_hour: Positive | None = Field(None, description="With by: recall, the most that may be.")
    miss_cost: Positive | None = Field(None, description="With by: cost, what a missed call costs.")
    false_alarm_cost: Positive | None = Field(None, description="With by: cost, what a false alarm costs.")

    @model_validator(mode="after")
    def _keys_belong_to_the_way(self) -> "ChoiceSettings":
        keys = {"f1": (), "recall": ("false_alarms_per_hour",), "cost": ("miss_cost", "false_alarm_cost")}
        for way, names in keys.items():
            for name in names:
                given = getattr(self, name) is not None
                if given and way != self.by:
                    raise ValueError(f"{name} is for by: {way}; drop it, or set by: {way}")
                if not given and way == self.by:
                    raise ValueError(f"by: {way} needs {name}")
        return self


class StrataSettings(Settings):
    """The bins in which calls are counted apart."""

    duration_edges_s: (
        Annotated[list[Positive], BeforeValidator(listed, json_schema_input_type=Positive | list[Positive])] | None
    ) = Field(
        None, description="Borders between short and long calls; null = thirds of the annotated calls of a label."
    )
    snr_edges_db: Annotated[list[float], BeforeValidator(listed, json_schema_input_type=float | list[float])] = Field(
        default_factory=lambda: [0.0, 10.0, 20.0], description="Borders between faint and loud calls."
    )


class EvaluationSettings(Settings):
    """Matching, the choice of the operating point, intervals. A single value stands for a list of one."""

    iou: Annotated[list[Overlap], BeforeValidator(listed, json_schema_input_type=Overlap | list[Overlap])] = Field(
        default_factory=lambda: [0.4], min_length=1, description="IoU thresholds; the first decides."
    )
    thresholds: Annotated[list[Fraction], BeforeValidator(listed, json_schema_input_type=Fraction | list[Fraction])] = (
        Field(
            default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
            description="Fixed thresholds reported beside the chosen one.",
        )
    )
    decoding: DecodingSettings = Field(default_factory=DecodingSettings, description="Scores to selections.")
    decoding_of: dict[Name, DecodingSettings] = Field(
        default_factory=dict, description="Another decoding for the training configuration of that name."
    )
    choice: ChoiceSettings = Field(
        default_factory=ChoiceSettings, description="By what validation chooses the operating point."
    )
    choice_of: dict[str, ChoiceSettings] = Field(
        default_factory=dict, description="Another choice for the target label of that name."
    )
    calibration: Literal["platt", "temperature", "isotonic", "none"] = Field(
        "platt",
        description="How the peak score of a selection becomes the probability that it is a hit, fitted on "
        "validation; isotonic needs some hundred selections.",
    )
    false_alarm_budgets_per_hour: Annotated[
        list[Positive], BeforeValidator(listed, json_schema_input_type=Positive | list[Positive])
    ] = Field(
        default_factory=lambda: [1.0, 10.0, 100.0], description="False alarms per hour at which recall is reported."
    )
    collar_s: Positive = Field(0.2, description="Collar matching: how far onsets (and offsets) may be apart.")
    collar_length_share: Fraction = Field(
        0.2, description="Collar matching: offsets may be apart by this share of the call's length, if that is more."
    )
    segment_s: Positive = Field(1.0, description="Length of the segments that are counted beside the calls.")
    frame_s: Positive = Field(0.01, description="Length of the frames that are counted beside the calls.")
    strata: StrataSettings = Field(default_factory=StrataSettings, description="Bins of duration and SNR.")
    bootstrap: int = Field(2000, ge=0, description="Resamples of the groups for the 95 % intervals.")

    @field_validator("iou", "thresholds", "false_alarm_budgets_per_hour")
    @classmethod
    def _each_stands_once(cls, values: list[float]) -> list[float]:
        for value, following in itertools.pairwise(sorted(values)):
            if math.isclose(value, following, rel_tol=_AS_GOOD_AS_EQUAL):
                raise ValueError(f"{value:g} stands there twice; drop one")
        return values
