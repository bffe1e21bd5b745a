"""Upwell beside other task runtimes, each in an environment of its own: `python -m benchmarks.rivals`."""
