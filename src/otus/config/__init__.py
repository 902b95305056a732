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
from otus.config.evaluation import ChoiceSettings, Decoding, DecodingSettings, EvaluationSettings, StrataSettings
from otus.config.external import ExternalSettings, HawkEarsSettings
from otus.config.forest import ForestSettings
from otus.config.loading import config_schema, load_config, parse_config, use_config_file
from otus.config.networks import (
    BeatsSettings,
    CrnnSettings,
    DenseResnetSettings,
    Resnet18Settings,
    TcnSettings,
    TimmSettings,
)
from otus.config.prediction import ChunkSettings, PredictionSettings
from otus.config.settings import Config, ReportSettings
from otus.config.soundscapes import EventSource, SnrSettings, SoundscapeSettings
from otus.config.training import AugmentationSettings, FrontendSettings, OptimisationSettings, TrainingSettings

__all__ = [
    "LEAKY_STRATEGIES",
    "UNKNOWN",
    "AnnotationFormat",
    "AnnotationSource",
    "AugmentationSettings",
    "BeatsSettings",
    "ChoiceSettings",
    "ChunkSettings",
    "ClipFileSettings",
    "ClipImageSettings",
    "Config",
    "CorpusSettings",
    "CrnnSettings",
    "DatasetSettings",
    "Decoding",
    "DecodingSettings",
    "DemoSettings",
    "DenseResnetSettings",
    "EvaluationSettings",
    "EventSource",
    "ExternalSettings",
    "ExtractSettings",
    "ForestSettings",
    "FrontendSettings",
    "HardNegativeSettings",
    "HawkEarsSettings",
    "NamePattern",
    "OptimisationSettings",
    "PredictionSettings",
    "ReportSettings",
    "Resnet18Settings",
    "SnrSettings",
    "SoundscapeSettings",
    "SplitSettings",
    "StrataSettings",
    "Strategy",
    "TcnSettings",
    "TimmSettings",
    "TrainingSettings",
    "config_schema",
    "load_config",
    "parse_config",
    "use_config_file",
]
