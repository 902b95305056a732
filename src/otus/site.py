"""What differs from site to site on a cluster: partitions, account, the form of a GPU request; file or variables."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from otus.config import use_config_file
from otus.errors import DataError

#: A variable OTUS_SLURM_<KEY> wins over the key in the site file.
PREFIX = "OTUS_SLURM_"
#: Names the site file; without it site.yaml in the working directory, then ~/.config/otus/site.yaml, if they exist.
FILE_VARIABLE = "OTUS_SITE"


class Site(BaseModel):
    """Everything about a Slurm site that Otus needs to know; nothing here changes a result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account: str | None = Field(
        None, description="Account that is charged (`sbatch -A`); Slurm's default if not given."
    )
    cpu_partition: str | None = Field(
        None, description="Partition of the CPU jobs; the cluster's default if not given."
    )
    gpu_partition: str | None = Field(None, description="Partition of training and prediction jobs.")
    gpu_model: str | None = Field(
        None, description="GPU model as Slurm names it, e.g. `a100` (asked as `--gpus=a100:1`)."
    )
    gres: str | None = Field(
        None, description="Where `--gpus` is not accepted: the whole request, e.g. `gpu:1` or `gpu:a100:1`."
    )
    gpu_constraint: str | None = Field(None, description="Node feature that GPU jobs need (`-C`), e.g. `a100&80g`.")
    cpu_constraint: str | None = Field(None, description="Node feature that CPU jobs need (`-C`).")
    qos: str | None = Field(None, description="Quality of service (`--qos`) of every job.")
    reservation: str | None = Field(None, description="Reservation to run in.")
    activate: str | None = Field(
        None, description="Shell command before every job, e.g. `module load cuda/12.4`; jobs inherit your environment."
    )
    container: str | None = Field(None, description="Apptainer image for `--sdm apptainer` (envs/otus.def builds it).")
    jobs: int = Field(50, ge=1, description="Jobs in the queue at a time.")
    max_gpus: int = Field(8, ge=1, description="GPU jobs in the queue at a time.")
    longest_min: int | None = Field(
        None, ge=10, description="Longest time that your partitions allow, in minutes; no job asks for more."
    )
    signal_s: int = Field(
        120, ge=0, le=3600, description="Seconds before the time limit at which a GPU job saves its state and stops."
    )
    status_command: Literal["auto", "sacct", "squeue"] = Field(
        "auto", description="How jobs are watched; auto takes sacct if the accounting database answers."
    )
    poll_s: int = Field(20, ge=1, le=600, description="Seconds before jobs are looked at first; idle looks are rarer.")
    usage: str = Field("usage.csv", description="Table of what past jobs took; relative to the working directory.")

    @model_validator(mode="after")
    def _one_form(self) -> "Site":
        if self.gres and self.gpu_model:
            raise ValueError("give gres or gpu_model, not both (gres: gpu:<model>:1 names the model)")
        if self.gres and not re.fullmatch(r"gpu(:[\w.-]+)?:1", self.gres):
            raise ValueError(f"gres: {self.gres} does not ask for one GPU; write gpu:1 or gpu:<model>:1")
        return self


def site_file(environment: Mapping[str, str], folder: Path) -> Path | None:
    """Return the site file that holds for `folder`, or None if there is none."""
    if named := environment.get(FILE_VARIABLE):
        return Path(named).expanduser()
    home = Path(environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME", "~"), ".config"))
    candidates = (folder / "site.yaml", home.expanduser() / "otus" / "site.yaml")
    return next((path for path in candidates if path.is_file()), None)


def load_site(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Site:
    """Return the site's settings: variables over the site file over the defaults.

    Raises DataError with one sentence for an unknown key, a bad value or an unreadable file.
    """
    environment = os.environ if environment is None else environment
    path = site_file(environment, folder or Path.cwd())
    values = dict(use_config_file(path)) if path else {}
    origin = dict.fromkeys(values, str(path))
    keys = list(Site.model_fields)
    for name, value in environment.items():
        if name.startswith(PREFIX) and value:
            key = name.removeprefix(PREFIX).lower()
            values[key], origin[key] = value, name
    for key in values:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"valid keys: {', '.join(keys)}."
            raise DataError(f"{origin[key]}: unknown site key '{key}'; {hint}")
    try:
        return Site.model_validate(values)
    except ValidationError as error:
        raise DataError("; ".join(_sentence(e, origin) for e in error.errors())) from None


def _sentence(error: object, origin: Mapping[str, str]) -> str:
    location = error["loc"] if isinstance(error, dict) else ()
    message = str(error["msg"]).removeprefix("Value error, ") if isinstance(error, dict) else str(error)
    key = str(location[0]) if location else ""
    return f"{origin.get(key, 'site settings')}: {key}: {message}" if key else f"site settings: {message}"
