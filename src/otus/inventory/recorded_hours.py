"""When and where was recorded: hours per site and day, week or month, as a picture of squares."""

import datetime
import math
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup, escape

#: Sites beyond these (those with the fewest hours) are not drawn.
_MOST_SITES = 40
_LONGEST_IN_DAYS, _LONGEST_IN_WEEKS = 92, 730
_NAME_PX, _ROW_PX, _WIDTH_PX, _DATE_PX = 170, 18, 760, 80
_NAME_CHARACTERS = 26


@dataclass(frozen=True)
class Calendar:
    """The picture, what a square stands for, its hours at full colour, and how many sites are not drawn."""

    svg: Markup
    unit: str
    most_h: float
    left_out: int


def draw_calendar(recordings: pd.DataFrame) -> Calendar | None:
    """Return a picture of the hours that the readable `recordings` hold, by site and date; None if none has a date.

    Recordings without a site are in one row. Colours come from the page's --accent and --ink.
    """
    dated = recordings[recordings["start_time"].notna() & recordings["duration_s"].notna()]
    if dated.empty:
        return None
    days = [datetime.date.fromisoformat(text[:10]) for text in dated["start_time"]]
    unit = _unit((max(days) - min(days)).days)
    columns = _columns(min(days), max(days), unit)
    place = {start: i for i, start in enumerate(columns)}
    cells = pd.DataFrame(
        {
            "site": dated["site"].fillna("").to_numpy(),
            "column": [place[_beginning(day, unit)] for day in days],
            "hours": dated["duration_s"].to_numpy() / 3600,
        }
    )
    hours = cells.groupby(["site", "column"])["hours"].sum()
    by_site = cells.groupby("site")["hours"].sum()
    sites = sorted(by_site.index, key=lambda site: (-by_site[site], site))
    shown = sorted(sites[:_MOST_SITES])
    return Calendar(_svg(hours, shown, columns), unit, float(hours.max()), len(sites) - len(shown))


def _unit(days: int) -> str:
    """The stretch of time that a square stands for, so that there are not too many."""
    return "day" if days <= _LONGEST_IN_DAYS else "week" if days <= _LONGEST_IN_WEEKS else "month"


def _beginning(day: datetime.date, unit: str) -> datetime.date:
    """The first day of the stretch that a day is in."""
    if unit == "week":
        return day - datetime.timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _columns(first: datetime.date, last: datetime.date, unit: str) -> list[datetime.date]:
    """The first days of all stretches from `first` to `last`."""
    here, columns = _beginning(first, unit), []
    step = datetime.timedelta(days={"day": 1, "week": 7, "month": 32}[unit])
    while here <= last:
        columns.append(here)
        here = _beginning(here + step, unit)
    return columns


def _svg(hours: "pd.Series[float]", sites: list[str], columns: list[datetime.date]) -> Markup:
    """The squares, a row for each site, with dates below."""
    width = min(24.0, _WIDTH_PX / len(columns))
    height = _ROW_PX * len(sites)
    row = {site: i for i, site in enumerate(sites)}
    most = float(hours.max())
    parts = []
    for site, i in row.items():
        name = escape(_site_name(site, alone=len(sites) == 1))
        parts.append(f'<text x="{_NAME_PX - 8}" y="{i * _ROW_PX + 13}" text-anchor="end">{name}</text>')
    for (site, column), value in hours.items():
        if site in row:
            label = escape(f"{site or 'recordings'}, from {columns[column].isoformat()}: {value:.2f} h")
            corner = f'x="{_NAME_PX + column * width:.1f}" y="{row[site] * _ROW_PX}"'
            size = f'width="{max(1.0, width - 1):.1f}" height="{_ROW_PX - 2}"'
            opacity = 0.15 + 0.85 * value / most if most else 1
            parts.append(f'<rect {corner} {size} fill-opacity="{opacity:.2f}"><title>{label}</title></rect>')
    for i in range(0, len(columns), math.ceil(_DATE_PX / width)):
        x = _NAME_PX + i * width
        parts.append(f'<text x="{x:.1f}" y="{height + 14}">{columns[i].isoformat()}</text>')
    all_width = round(_NAME_PX + width * len(columns) + _DATE_PX)
    size = f'width="{all_width}" height="{height + 20}" viewBox="0 0 {all_width} {height + 20}"'
    return Markup(f'<svg {size} role="img" aria-label="Hours recorded by site and date">{"".join(parts)}</svg>')


def _site_name(site: str, *, alone: bool) -> str:
    """The name in front of a row."""
    name = site or ("all" if alone else "no site")
    return name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"
