"""Small tables of clips for the tests of clip files."""

from otus.clipfiles.names import named_clips, numbered_clips
from otus.tables import table


def recordings_of(*rows):
    """Recordings by id, with a rate of 1000 Hz and a group of their own unless a row says otherwise."""
    usual = {"sample_rate": 1000, "n_samples": 60_000, "duration_s": 60.0, "labelled": True, "readable": True}
    return table(
        "recordings", [{"path": f"{r['recording_id']}.wav", "group": r["recording_id"], **usual, **r} for r in rows]
    )


def clips_of(*rows):
    usual = {"class": "noise", "origin": "mined", "fold": 1, "split": "train", "leaky": False}
    listed = [{**usual, **row} for row in rows]
    return table("clips", [{"clip_id": f"{r['recording_id']}_c{i:05d}", **r} for i, r in enumerate(listed)])


def clip(recording="a", start=0, end=500, **values):
    return {"recording_id": recording, "start_sample": start, "end_sample": end, **values}


def call(recording="a", start=0, end=500, label="hum", **values):
    return clip(recording, start, end, label=label, **{"class": "target", "origin": "annotation", **values})


def named_of(recordings, clips, targets=("hum",)):
    once, sides = numbered_clips(recordings, clips)
    return named_clips(once, groups=recordings["group"], targets=targets), sides
