"""What upwell costs, beside asyncio and the standard library's pools: `python -m benchmarks`."""
