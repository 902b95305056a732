"""Typed settings: what a config file may say, with defaults, units and limits, and how it is loaded."""

from otus.config.base import UNKNOWN
from otus.config.corpus import (
    AnnotationFormat,
    AnnotationSource,
    CorpusSettings,
    DemoSettings,
    ExtractSettings,
    NamePattern,
)
from otus.config.datasets import (
    LEAKY_STRATEGIES,
    ClipFileSettings,
    ClipImageSettings,
    DatasetSettings,
    HardNegativeSettings,
    SplitSettings,
    Strategy,
)
from otus.config.loading import config_schema, load_config, parse_config, use_config_file
from otus.config.settings import (
    AugmentationSettings,
    ChunkSettings,
    Config,
    DecodingSettings,
    EvaluationSettings,
    ForestSettings,
    FrontendSettings,
    NetworkSettings,
    PredictionSettings,
    ReportSettings,
    TrainingSettings,
)
from otus.config.soundscapes import EventSource, SnrSettings, SoundscapeSettings

__all__ = [
    "LEAKY_STRATEGIES",
    "UNKNOWN",
    "AnnotationFormat",
    "AnnotationSource",
    "AugmentationSettings",
    "ChunkSettings",
    "ClipFileSettings",
    "ClipImageSettings",
    "Config",
    "CorpusSettings",
    "DatasetSettings",
    "DecodingSettings",
    "DemoSettings",
    "EvaluationSettings",
    "EventSource",
    "ExtractSettings",
    "ForestSettings",
    "FrontendSettings",
    "HardNegativeSettings",
    "NamePattern",
    "NetworkSettings",
    "PredictionSettings",
    "ReportSettings",
    "SnrSettings",
    "SoundscapeSettings",
    "SplitSettings",
    "Strategy",
    "TrainingSettings",
    "config_schema",
    "load_config",
    "parse_config",
    "use_config_file",
]
