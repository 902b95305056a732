"""What others read: tables to review a model's selections in Raven and Audacity, and the files of alpaca pipelines."""

from otus.exports.files import write_files
from otus.exports.model import ExportedLayer, export_model
from otus.hearing import Hearing, read_hearing

__all__ = ["ExportedLayer", "Hearing", "export_model", "read_hearing", "write_files"]
