"""Build soundscapes from labelled clips."""

from pathlib import Path

from otus.config import SoundscapeSettings
from otus.joblog import job_log
from otus.soundscapes import build_soundscapes

log = job_log(snakemake.log[0])
folder = Path(snakemake.output.done).parent
settings = SoundscapeSettings.model_validate(snakemake.params.settings)
index = build_soundscapes(settings, folder, workers=snakemake.threads, progress=log)
counts = index["counts"]
log(f"{counts['recordings']} soundscapes, {counts['hours']:.2f} h, {counts['events']} events in {folder}")
