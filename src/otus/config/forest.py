"""Settings of the post-filter."""

from pydantic import Field

from otus.config.base import Fraction, Positive, Settings


class ForestSettings(Settings):
    """The random-forest post-filter."""

    trees: int = Field(300, ge=10, description="Trees.")
    min_samples_leaf: int = Field(2, ge=1, description="Smallest leaf.")
    candidate_recall: Fraction = Field(
        0.95,
        description="Candidates come from the threshold that keeps this share of the best validation recall.",
    )
    window_s: Positive | None = Field(None, description="Analysis window of the features; null = the model's.")
    mfcc: int = Field(13, ge=1, le=40, description="Number of MFCC.")
