"""Settings of the post-filter."""

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from otus.config.base import Fraction, Positive, Settings, listed

ClassWeight = Literal["balanced", "none"]
Tree = Annotated[int, Field(ge=10)]
Leaf = Annotated[int, Field(ge=1)]


#: Keys that do nothing, by the kind that makes them so: each is refused unless it has its default.
_UNHEEDED: dict[str, tuple[str, ...]] = {
    "forest": ("penalty",),
    "boosting": ("penalty",),
    "logistic": ("trees", "min_samples_leaf"),
}

_ALL_NEGATIVES: list[float | None] = [None]
_BALANCED: list[ClassWeight] = ["balanced"]

#: Fits of one candidate in the inner cross-validation, at most.
INNER_FOLDS = 5


@dataclass(frozen=True)
class Candidate:
    """One way of fitting; None where the kind has no such thing, or for all false alarms."""

    trees: int | None
    min_samples_leaf: int | None
    penalty: float | None
    negatives_per_hit: float | None
    class_weight: ClassWeight


class ForestSettings(Settings):
    """The post-filter that is fitted on selections of the network. Several values of a key are chosen from."""

    kind: Literal["forest", "boosting", "logistic"] = Field(
        "forest",
        description="forest: a random forest; boosting: gradient-boosted trees; logistic: a logistic regression on "
        "standardised features.",
    )
    features: Literal["all", "alpaca"] = Field(
        "all",
        description="all: those of alpaca, and what the scores, the surroundings and the neighbours of a selection "
        "tell; alpaca: the features of the older pipeline by that name.",
    )
    time_of_day: bool = Field(
        False,
        description="Also the time of day, by the start times of the recordings; with features: all. For recordings "
        "of hours: among short ones it tells recordings apart rather than calls.",
    )
    trees: Annotated[list[Tree], BeforeValidator(listed, json_schema_input_type=Tree | list[Tree])] = Field(
        default_factory=lambda: [300],
        min_length=1,
        description="Trees; several numbers: grouped cross-validation chooses, here and below.",
    )
    min_samples_leaf: Annotated[list[Leaf], BeforeValidator(listed, json_schema_input_type=Leaf | list[Leaf])] = Field(
        default_factory=lambda: [2, 8], min_length=1, description="Smallest leaf."
    )
    penalty: Annotated[list[Positive], BeforeValidator(listed, json_schema_input_type=Positive | list[Positive])] = (
        Field(
            default_factory=lambda: [10.0, 100.0],
            min_length=1,
            description="Of a logistic regression: weight of the squared coefficients.",
        )
    )
    negatives_per_hit: Annotated[
        list[Positive | None], BeforeValidator(listed, json_schema_input_type=Positive | list[Positive | None] | None)
    ] = Field(
        default_factory=lambda: list(_ALL_NEGATIVES),
        min_length=1,
        description="At most so many false alarms are fitted on for every hit, taken from the groups with the most; "
        "null = all.",
    )
    class_weight: Annotated[
        list[ClassWeight], BeforeValidator(listed, json_schema_input_type=ClassWeight | list[ClassWeight])
    ] = Field(
        default_factory=lambda: list(_BALANCED),
        min_length=1,
        description="balanced: hits and false alarms weigh the same in total; none: every selection weighs the same.",
    )
    candidate_recall: Fraction = Field(
        0.95,
        description="Candidates come from the threshold that keeps this share of the best validation recall.",
    )
    window_s: Positive | None = Field(None, description="Analysis window of the features; null = the model's.")
    mfcc: int = Field(13, ge=1, le=40, description="Number of MFCC.")

    def candidates(self) -> list[Candidate]:
        """Return every combination of the listed values, the simplest first.

        Simpler: fewer trees, larger leaves, a larger penalty, fewer false alarms; class weights in the order given.
        """
        logistic = self.kind == "logistic"
        trees: list[int | None] = [None] if logistic else [*sorted(set(self.trees))]
        leaves: list[int | None] = [None] if logistic else [*sorted(set(self.min_samples_leaf), reverse=True)]
        penalties: list[float | None] = [*sorted(set(self.penalty), reverse=True)] if logistic else [None]
        negatives = sorted(set(self.negatives_per_hit), key=lambda n: (n is None, n))
        weights = dict.fromkeys(self.class_weight)
        return [Candidate(*values) for values in itertools.product(trees, leaves, penalties, negatives, weights)]

    @property
    def grown_trees(self) -> int:
        """Trees that are grown for one post-filter, in the search and after it."""
        trees = [candidate.trees or 0 for candidate in self.candidates()]
        return INNER_FOLDS * sum(trees) + max(trees)

    @model_validator(mode="after")
    def _everything_is_heeded(self) -> "ForestSettings":
        usual = {name: field.get_default(call_default_factory=True) for name, field in type(self).model_fields.items()}
        for name in _UNHEEDED[self.kind]:
            if getattr(self, name) != usual[name]:
                raise ValueError(f"{name} is set, but kind: {self.kind} does nothing with it; drop it")
        if self.time_of_day and self.features == "alpaca":
            raise ValueError("time_of_day is no feature of alpaca; drop it, or set features: all")
        return self
