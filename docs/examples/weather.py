"""The weather of some cities: fetched, saved and told, every hour. See docs/tutorial.md."""

from __future__ import annotations

import datetime as dt
import json
import os
import urllib.request
from pathlib import Path

from upwell import flow, get_run_logger, task
from upwell.cache_policies import INPUTS

URL = os.environ.get("WEATHER_URL", "http://127.0.0.1:8765")
FILE = Path("weather.csv")


@task(
    retries=5,
    retry_delay_seconds=[0.1, 0.5, 2, 10, 30],
    timeout_seconds=10,
    cache_policy=INPUTS,
    cache_expiration=dt.timedelta(minutes=10),
)
def fetch(city: str) -> float:
    with urllib.request.urlopen(f"{URL}/{city}") as answer:
        celsius: float = json.load(answer)["celsius"]
    get_run_logger().info("%s: %s degrees", city, celsius)
    return celsius


@task
def save(found: dict[str, float]) -> None:
    now = dt.datetime.now().isoformat(timespec="seconds")
    with FILE.open("a") as file:
        file.writelines(f"{now},{city},{celsius}\n" for city, celsius in found.items())


@flow(log_prints=True)
def weather(cities: list[str], warm: float = 20) -> str:
    """Fetch the weather, save it, and say where it is warm.

    Args:
        cities: whose weather
        warm: from how many degrees on
    """
    found = dict(zip(cities, fetch.map(cities, max_at_once=4).result(), strict=True))
    save(found)
    told = f"It is warm in {', '.join(city for city in cities if found[city] >= warm) or 'no city'}."
    print(told)
    return told


if __name__ == "__main__":
    weather.serve("hourly", cron="0 * * * *", parameters={"cities": ["Oslo", "Lima", "Quito", "Cairo"]})
