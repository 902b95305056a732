"""Settings of evaluation: from scores to selections, the choice of the operating point, and what is measured."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import Fraction, Name, Positive, Settings


class DecodingSettings(Settings):
    """The grid of decodings that validation chooses from. Scores are probabilities here.

    The first value of each list is the usual one: another wins only if it is better by more than half a call is worth.
    """

    merge: Literal["hysteresis", "threshold", "union"] = Field(
        "hysteresis",
        description="How frames become selections. hysteresis: while the score stays above an off-threshold, if its "
        "peak reaches the on-threshold; threshold: while it stays above one threshold; union: all windows above one "
        "threshold, joined where they touch, as ANIMAL-SPOT does it.",
    )
    off_thresholds: list[Fraction] = Field(
        default_factory=lambda: [0.3, 0.1, 0.5],
        min_length=1,
        description="A selection lasts while the smoothed score stays above this; for `threshold` and `union` the "
        "thresholds to choose from.",
    )
    onset_thresholds: list[Fraction] = Field(
        default_factory=lambda: [1.0, 0.3],
        min_length=1,
        description="An onset peak above this starts a new selection inside a running one; 1 = never.",
    )
    gaps: list[Annotated[float, Field(ge=0.0)]] = Field(
        default_factory=lambda: [0.0, 0.25],
        min_length=1,
        description="Selections closer than this are merged, in units of the median training call.",
    )
    smoothing: Annotated[float, Field(ge=0.0)] = Field(
        0.1, description="Moving average of the scores, in units of the median training call."
    )
    min_duration: Annotated[float, Field(ge=0.0)] = Field(
        0.5, description="Shortest selection, in units of the 5 % quantile of training calls."
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

    duration_edges_s: list[Positive] | None = Field(
        None, description="Borders between short and long calls; null = thirds of the annotated calls of a label."
    )
    snr_edges_db: list[float] = Field(
        default_factory=lambda: [0.0, 10.0, 20.0], description="Borders between faint and loud calls."
    )


class EvaluationSettings(Settings):
    """Matching, the choice of the operating point, intervals."""

    iou: list[Annotated[float, Field(gt=0.0, le=1.0)]] = Field(
        default_factory=lambda: [0.4], min_length=1, description="IoU thresholds; the first decides."
    )
    thresholds: list[Fraction] = Field(
        default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        description="Fixed thresholds reported beside the chosen one.",
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
    false_alarm_budgets_per_hour: list[Positive] = Field(
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
