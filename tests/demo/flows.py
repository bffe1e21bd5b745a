"""Flows like those that people have: they load, retry, map, cache, call subflows, and sometimes fail for a reason."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from upwell import flow, get_run_logger, task

REGIONS = ["north", "south", "east", "west", "overseas", "online"]
CITIES = ["Oslo", "Lima", "Nairobi", "Kyoto", "Porto", "Quito", "Hobart", "Tromsø", "Accra", "Cusco"]


class SchemaError(ValueError):
    """A file does not look as it was agreed."""


class SourceUnavailable(ConnectionError):
    """Another system does not answer."""


async def _work(seconds: float) -> None:
    """What takes time: half to three halves of it."""
    await asyncio.sleep(seconds * random.uniform(0.5, 1.5))


# --- sales: extract, convert, load ---------------------------------------------------------------------------


@task(retries=2, retry_delay_seconds=4, tags=["warehouse"])
async def extract_orders(region: str, date: str) -> int:
    await _work(6)
    log = get_run_logger()
    if random.random() < 0.06:
        log.warning("The orders service answered 503, and will be asked again")
        raise SourceUnavailable(f"orders-{region}.internal answered 503 Service Unavailable")
    rows = random.randint(8_000, 90_000)
    log.info("%s rows of %s for %s", f"{rows:,}", region, date)
    return rows


@task
async def convert_currency(rows: int, currency: str) -> int:
    await _work(9)
    return rows


@task
async def check_schema(rows: list[int], broken: bool) -> int:
    await _work(2)
    if broken:
        get_run_logger().error("Column 'currency' is missing in orders_online.csv; found: id, region, amount, at")
        raise SchemaError("column 'currency' is missing in orders_online.csv (4 columns found, 5 agreed)")
    return sum(rows)


@task(tags=["warehouse"])
async def load_warehouse(total: int, table: str) -> int:
    await _work(12)
    get_run_logger().info("Loaded %s rows into %s", f"{total:,}", table)
    return total


@task
async def refresh_dashboards(total: int) -> None:
    await _work(3)


@flow(name="daily-sales")
async def daily_sales(date: str = "2026-11-21", currency: str = "EUR", broken: bool = False) -> int:
    """Orders of all regions, in one currency, in the warehouse."""
    rows = extract_orders.map(REGIONS, date)
    converted = convert_currency.map(rows, currency)
    checked = check_schema.submit(converted, broken)
    loaded = load_warehouse.submit(checked, "analytics.orders")
    refresh_dashboards.submit(loaded)
    return await loaded


# --- weather: a map, and a report -----------------------------------------------------------------------------


@task(retries=3, retry_delay_seconds=2, tags=["api"])
async def fetch_forecast(city: str) -> dict[str, Any]:
    await _work(0.8)
    if random.random() < 0.04:
        raise SourceUnavailable(f"api.weather.example: timed out for {city}")
    return {"city": city, "celsius": random.randint(-8, 34)}


@task
async def write_report(forecasts: list[dict[str, Any]]) -> str:
    await _work(0.5)
    warmest = max(forecasts, key=lambda forecast: forecast["celsius"])
    get_run_logger().info("Warmest: %(city)s, %(celsius)s °C", warmest)
    return f"{len(forecasts)} cities"


@flow(name="hourly-weather")
async def hourly_weather(cities: list[str] = CITIES) -> str:
    """Forecasts of some cities, as one report."""
    return await write_report.submit(fetch_forecast.map(cities))


# --- customers: subflows --------------------------------------------------------------------------------------


@task(tags=["api"])
async def read_pages(source: str, page: int) -> int:
    await _work(2)
    return random.randint(80, 100)


@task
async def merge_records(pages: list[int]) -> int:
    await _work(3)
    get_run_logger().info("Merged %s records", sum(pages))
    return sum(pages)


@flow(name="sync-source")
async def sync_source(source: str, pages: int = 8) -> int:
    return await merge_records.submit(read_pages.map(source, list(range(pages))))


@task
async def find_duplicates(records: list[int]) -> int:
    await _work(5)
    return sum(records) // 90


@flow(name="sync-customers")
async def sync_customers(sources: tuple[str, ...] = ("crm", "billing", "support")) -> int:
    """Customers of all systems, each once."""
    found = [await sync_source(source) for source in sources]
    return await find_duplicates.submit(found)


# --- forecast: features, folds, a model ----------------------------------------------------------------------


@task(persist_result=True)
async def build_features(window_days: int) -> list[float]:
    await _work(40)
    return [random.random() for _ in range(8)]


@task
async def train_fold(features: list[float], fold: int) -> float:
    await _work(90)
    score = random.uniform(0.81, 0.93)
    get_run_logger().info("Fold %s: %.3f", fold, score)
    return score


@task
async def choose_model(scores: list[float]) -> float:
    await _work(4)
    return max(scores)


@task
async def publish_model(score: float) -> str:
    await _work(8)
    return f"forecast-{score:.3f}"


@flow(name="train-forecast")
async def train_forecast(window_days: int = 90, folds: int = 5) -> str:
    """A model of next week's demand."""
    features = build_features.submit(window_days)
    scores = train_fold.map([features] * folds, list(range(folds)))
    return await publish_model.submit(choose_model.submit(scores))


# --- catalogue: many runs, some of which fail -----------------------------------------------------------------


@task(retries=1, retry_delay_seconds=10, tags=["crawler"])
async def fetch_product(number: int) -> int:
    await _work(3)
    if number % 61 == 17 and random.random() < 0.12:
        raise SourceUnavailable(f"shop.example/products/{number}: 404 Not Found")
    return number


@task
async def parse_product(page: int) -> int:
    await _work(0.5)
    return page


@flow(name="crawl-catalogue")
async def crawl_catalogue(products: int = 240, at_once: int = 24) -> int:
    """Every product page of the shop."""
    pages = fetch_product.map(list(range(products)), max_at_once=at_once)
    parsed = parse_product.map(pages)
    return len([await page for page in parsed])


# --- a run that goes on while somebody looks ------------------------------------------------------------------


@task(tags=["documents"])
async def read_document(number: int) -> int:
    await _work(0.4)
    get_run_logger().info("Document %s has %s pages", number, number % 9 + 1)
    return number % 9 + 1


@task
async def index_document(pages: int) -> int:
    await _work(0.3)
    return pages


@flow(name="index-documents")
async def index_documents(documents: int = 400) -> int:
    """Reads documents and makes them findable."""
    indexed = index_document.map(read_document.map(list(range(documents)), max_at_once=4))
    return sum([await one for one in indexed])


@task
def score(number: int) -> int:
    return number


@flow(name="score-everything")
def score_everything(customers: int = 100_000) -> int:
    """One quick task run for each customer."""
    return len(score.map(range(customers)).result())
