"""Typed settings: what a config file may say, with defaults, units and limits, and how it is loaded."""

from otus.config.loading import config_schema, load_config, parse_config, use_config_file
from otus.config.settings import (
    AnnotationSource,
    AugmentationSettings,
    ChunkSettings,
    Config,
    CorpusSettings,
    DatasetSettings,
    DecodingSettings,
    DemoSettings,
    EvaluationSettings,
    ForestSettings,
    FrontendSettings,
    NetworkSettings,
    PredictionSettings,
    ReportSettings,
    SplitSettings,
    TrainingSettings,
)

__all__ = [
    "AnnotationSource",
    "AugmentationSettings",
    "ChunkSettings",
    "Config",
    "CorpusSettings",
    "DatasetSettings",
    "DecodingSettings",
    "DemoSettings",
    "EvaluationSettings",
    "ForestSettings",
    "FrontendSettings",
    "NetworkSettings",
    "PredictionSettings",
    "ReportSettings",
    "SplitSettings",
    "TrainingSettings",
    "config_schema",
    "load_config",
    "parse_config",
    "use_config_file",
]
