"""The config reference and the table schemas as text, made from the typed models."""

import inspect
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from otus.columns import SCHEMAS
from otus.config import Config
from otus.tables import SCHEMA_VERSION

_HEAD = """# Config reference

Made from the typed settings by `otus schema`; do not edit. Every key but `corpus.root`, `corpus.targets` and
`files` of an annotation source has a default. An unknown key is an error. `${VARIABLES}` and `~` are expanded; of
several `--configfile` the last wins.
"""


def table_schemas() -> dict[str, Any]:
    """Return column name -> Arrow type of every table."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tables": {name: {c: str(t) for c, t in columns.items()} for name, columns in SCHEMAS.items()},
    }


def config_reference() -> str:
    """Return the reference of the config file as Markdown: one table per section."""
    return _HEAD + "".join(_section(title, model) for title, model in _sections(Config, ""))


def _sections(model: type[BaseModel], title: str) -> list[tuple[str, type[BaseModel]]]:
    found = [(title, model)]
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            origin = str(field.annotation)
            part = f"{name}[]" if origin.startswith("list") else f"{name}.NAME" if origin.startswith("dict") else name
            found += _sections(inner, f"{title}.{part}".lstrip("."))
    return found


def _section(title: str, model: type[BaseModel]) -> str:
    lines = [f"\n## {f'`{title}`' if title else 'Top level'}\n", f"{inspect.cleandoc(model.__doc__ or '')}\n"]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(f"| `{name}` | {_default(field)} | {_plain(field.description or '')} |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text for a Markdown table: what would be markup in it is shown as it is."""
    for character in "|*<":
        text = text.replace(character, f"\\{character}")
    return text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value and _model_in(field.annotation) is not None:
        return "see below"
    if value is PydanticUndefined:
        return ""
    yaml_text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    shown = value if isinstance(value, str) else yaml_text.removesuffix("...\n").strip()
    return f"`{shown.replace('|', chr(92) + '|')}`"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for m in map(_model_in, get_args(annotation)) if m is not None), None)
