"""Carries decisions out in asyncio: how runs are dispatched, attempted, awaited, cancelled and settled."""
