"""What upwell costs, beside asyncio and the standard library's pools: `python -m benchmarks`.

The rows of the core measure the engine alone: the journal is off. Those of the journal, of durable flows and of the
cache switch it on, to a new SQLite file, and say so.
"""

import os

os.environ.setdefault("UPWELL_JOURNAL", "off")  # before anything reads the settings
