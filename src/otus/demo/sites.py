"""The four places of the demo corpus: what differs between them is what a detector must not rely on."""

from dataclasses import dataclass
from datetime import datetime

from otus.demo.voices import Voice


@dataclass(frozen=True)
class Site:
    """One recorder. Levels are RMS in dB: `noise_dbfs` below full scale, the others relative to that noise.

    `rain_share` and `drone_share` are the chances that a recording has rain or a passing engine;
    `confusers` weighs the kinds of confuser calls, of which `confusers_per_minute` are heard.
    """

    name: str
    first_start: datetime
    noise_dbfs: float
    noise_slope_db: float
    wind_db: float
    rain_share: float
    rain_db: float
    drone_share: float
    clicks_per_minute: float
    insects_hz: float
    insects_db: float
    confusers_per_minute: float
    confusers: dict[str, float]
    voice: Voice


SITES = (
    Site(
        name="site_a",
        first_start=datetime(2024, 5, 12, 4, 30),
        noise_dbfs=-43.0,
        noise_slope_db=-3.5,
        wind_db=4.0,
        rain_share=0.0,
        rain_db=0.0,
        drone_share=0.25,
        clicks_per_minute=12.0,
        insects_hz=4800.0,
        insects_db=-6.0,
        confusers_per_minute=10.0,
        confusers={"whistle": 4.0, "chirp": 3.0, "moan": 2.0, "growl": 1.5, "bark": 1.0},
        voice=Voice(340.0, 0.55, 0.16, 7.0, (3.0, 1.0, 3.0, 1.0)),
    ),
    Site(
        name="site_b",
        first_start=datetime(2024, 5, 14, 5, 10),
        noise_dbfs=-38.0,
        noise_slope_db=-2.0,
        wind_db=-2.0,
        rain_share=0.5,
        rain_db=-7.0,
        drone_share=0.2,
        clicks_per_minute=8.0,
        insects_hz=6200.0,
        insects_db=-12.0,
        confusers_per_minute=8.0,
        confusers={"whistle": 2.0, "chirp": 1.0, "moan": 1.0, "growl": 2.0, "bark": 3.0},
        voice=Voice(450.0, 0.40, 0.18, 9.0, (1.0, 3.0, 2.0, 1.0)),
    ),
    Site(
        name="site_c",
        first_start=datetime(2024, 6, 2, 19, 45),
        noise_dbfs=-48.0,
        noise_slope_db=-5.0,
        wind_db=7.0,
        rain_share=0.25,
        rain_db=-10.0,
        drone_share=0.0,
        clicks_per_minute=25.0,
        insects_hz=3900.0,
        insects_db=-3.0,
        confusers_per_minute=11.0,
        confusers={"whistle": 3.0, "chirp": 2.0, "moan": 3.0, "growl": 1.5, "bark": 1.0},
        voice=Voice(500.0, 0.65, 0.14, 6.0, (1.0, 1.0, 2.0, 3.0)),
    ),
    Site(
        name="site_d",
        first_start=datetime(2024, 6, 9, 18, 5),
        noise_dbfs=-41.0,
        noise_slope_db=-3.0,
        wind_db=0.0,
        rain_share=0.25,
        rain_db=-8.0,
        drone_share=0.75,
        clicks_per_minute=5.0,
        insects_hz=7400.0,
        insects_db=-9.0,
        confusers_per_minute=9.0,
        confusers={"whistle": 3.0, "chirp": 2.0, "moan": 1.0, "growl": 1.5, "bark": 2.0},
        voice=Voice(400.0, 0.50, 0.20, 8.0, (2.0, 2.0, 1.0, 1.5)),
    ),
)
