"""From a YAML file to checked settings: expansion of variables, one clear sentence per mistake, the JSON schema."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from otus.config.settings import Config
from otus.errors import DataError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load_config(paths: list[Path]) -> Config:
    """Return the settings in the YAML files `paths`; later files win, mappings are merged, lists replaced.

    Raises DataError with one sentence per mistake.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merge(merged, use_config_file(path))
    return parse_config(merged)


def use_config_file(path: Path) -> dict[str, Any]:
    """Return the mapping in one YAML file; DataError if it is missing, not YAML or not a mapping."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the config file ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the config file is not UTF-8 text; save it as UTF-8.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else f"{path}"
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise DataError(f"{where}: not valid YAML: {problem}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: a config file is a mapping of keys such as 'corpus:'; this one is not.")
    return value


def parse_config(values: Mapping[str, Any]) -> Config:
    """Check `values` (as read from YAML) and return them as settings, with variables and ~ expanded."""
    try:
        return Config.model_validate(_expand(dict(values), "config"))
    except ValidationError as error:
        raise DataError("config: " + "; ".join(_sentence(e) for e in error.errors())) from None


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of the config file."""
    return Config.model_json_schema()


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _expand(value: Any, where: str) -> Any:
    """Expand ${VAR} and a leading ~ in every string; an unset variable is an error that names the key."""
    if isinstance(value, Mapping):
        return {key: _expand(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise DataError(f"{where}: the environment variable {name} is not set; export {name}=... first.")
        return os.environ[name]

    return os.path.expanduser(_VARIABLE.sub(variable, value))  # noqa: PTH111 (Path fails where ~ names no user)


def _sentence(error: Any) -> str:
    """One pydantic error as a sentence that names the key, and the nearest valid key for an unknown one."""
    location = [part for part in error["loc"] if part != "[key]"]
    path = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        return _unknown_key(location, _keys_at(location[:-1]))
    if error["type"] == "literal_error" and error["loc"][-1] == "[key]":
        return _unknown_key(location, re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    if error["type"] == "missing":
        return f"the key '{path}' is missing"
    if error["type"] in ("model_type", "dict_type"):
        hint = "it is empty; write {} for the defaults" if error["input"] is None else f"found {error['input']!r}"
        return f"'{path}': must be a mapping of keys ({hint})"
    message = error["msg"].removeprefix("Value error, ")
    return f"'{path}': {message} (found {error['input']!r})" if path else message


def _unknown_key(location: list[Any], valid: list[str]) -> str:
    near = difflib.get_close_matches(str(location[-1]), valid, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"valid keys: {', '.join(valid)}."
    return f"unknown key '{'.'.join(map(str, location))}'; {hint}"


def _keys_at(parents: list[Any]) -> list[str]:
    """The valid keys of the settings class that the location `parents` leads to."""
    model: Any = Config
    within = False  # a list or a mapping of settings, whose next part is an index or a name and no field
    for part in parents:
        if within:
            within = False
            continue
        annotation = model.model_fields[part].annotation
        within = get_origin(annotation) in (list, dict)
        model = _model_in(annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> Any:
    """The settings class inside an annotation such as `X | None`, `list[X]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [m for m in map(_model_in, get_args(annotation)) if m is not None]
    return found[0] if found else None
