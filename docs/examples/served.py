"""A flow that runs every night, and whenever somebody asks for it, while this script runs."""

from upwell import flow, task


@task(retries=2)
def sales_of(shop: str) -> int:
    return 100 * len(shop)


@flow(log_prints=True)
def report(shops: list[str], currency: str = "EUR") -> int:
    """Count what was sold.

    Args:
        shops: which shops count
        currency: what the sum is told in
    """
    total = sum(sales_of.map(shops).result())
    print(f"{total} {currency} in {len(shops)} shops")
    return total


if __name__ == "__main__":
    report.serve(
        "nightly",
        cron="0 3 * * *",
        timezone="Europe/Berlin",
        parameters={"shops": ["north", "south"]},
    )
