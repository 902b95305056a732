"""Contact sheets: small pictures of many clips of one label, to see at a glance what is in a class."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from otus.seeds import derive_seed

_TILE = (176, 120)
_GAP, _LINE, _TITLE = 8, 15, 34
_PAPER, _INK, _SOFT = "#16181b", "#f2f3f5", "#a9afb8"
_LONGEST_ID = 27


def write_sheets(
    folder: Path, clips: pd.DataFrame, pictures: Mapping[int, str], sides: Callable[[int], str], *, tiles: int
) -> list[str]:
    """Write `contact_sheet_<folder>.png` for every label that has pictures; return the names of the files, sorted.

    `clips` has the columns of named_clips, `pictures` leads from the uid to an image below `folder`, `sides` says in
    words on which sides a clip stands. Of more than `tiles` clips some are drawn, the same ones every time; they stand
    in the order of their uids. All tiles have one size, so the scale of time differs between them.
    """
    names = []
    for label, rows in clips.sort_values("uid").groupby("folder", sort=True):
        shown = [row for row in rows.to_dict("records") if row["uid"] in pictures]
        if not shown:
            continue
        drawn = sorted(sorted(shown, key=_lot)[:tiles], key=lambda row: int(row["uid"]))
        name = f"contact_sheet_{label}.png"
        first = drawn[0]
        title = first["label"] if isinstance(first["label"], str) else "noise without a label"
        sheet = _sheet(folder, f"{title} ({first['class']}): {len(drawn)} of {len(rows)} clips", drawn, pictures, sides)
        sheet.save(folder / name, "PNG")
        names.append(name)
    return names


def _sheet(
    folder: Path, title: str, rows: list[dict[Any, Any]], pictures: Mapping[int, str], sides: Callable[[int], str]
) -> Image.Image:
    columns = min(len(rows), max(4, math.ceil(math.sqrt(len(rows) * 1.2))))
    width, height = _TILE[0] + _GAP, _TILE[1] + 2 * _LINE + _GAP
    lines = -(-len(rows) // columns)
    large, small = _font(15), _font(10)
    size = (max(columns * width + _GAP, math.ceil(large.getlength(title)) + 2 * _GAP), lines * height + _TITLE)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, font=large, fill=_INK)
    for i, row in enumerate(rows):
        x, y = _GAP + i % columns * width, _TITLE + i // columns * height
        with Image.open(folder / pictures[row["uid"]]) as picture:
            tile = picture.convert("RGB").resize(_TILE, Image.Resampling.LANCZOS)
        sheet.paste(tile, (x, y))
        draw.text((x, y + _TILE[1] + 1), _shortened(row["recording_id"]), font=small, fill=_INK)
        quality = [row["quality"]] if isinstance(row["quality"], str) else []
        facts = [f"{row['start_s']:.2f} s + {row['end_s'] - row['start_s']:.2f}", *quality, sides(row["uid"])]
        draw.text((x, y + _TILE[1] + 1 + _LINE), _fitting(" · ".join(facts), small), font=small, fill=_SOFT)
    return sheet


def _lot(row: dict[Any, Any]) -> tuple[int, int]:
    """A number that depends on nothing but the clip itself."""
    return derive_seed(0, row["recording_id"], row["start_sample"], row["end_sample"]), int(row["uid"])


def _shortened(name: str) -> str:
    """A long name without its middle: names of one recorder differ at their end."""
    return name if len(name) <= _LONGEST_ID else f"{name[:8]}…{name[9 - _LONGEST_ID :]}"


def _fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text, cut off where the tile ends."""
    while font.getlength(text) > _TILE[0]:
        text = f"{text[:-2]}…"
    return text


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, which knows the letters of most languages."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
