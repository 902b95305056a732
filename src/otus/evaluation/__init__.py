"""Scores to numbers: the operating point chosen on validation groups, matching, counts, metrics."""

from otus.evaluation.folds import FoldScores, read_fold
from otus.evaluation.model import Evaluation, evaluate_model
from otus.evaluation.tally import Judged, count_per_recording, judge, matched_pairs, settle
from otus.evaluation.thresholds import ChosenPoint, points_in_words, read_thresholds, write_thresholds

__all__ = [
    "ChosenPoint",
    "Evaluation",
    "FoldScores",
    "Judged",
    "count_per_recording",
    "evaluate_model",
    "judge",
    "matched_pairs",
    "points_in_words",
    "read_fold",
    "read_thresholds",
    "settle",
    "write_thresholds",
]
