"""Benchmarks: each is a module to run with `python -m`, and prints JSON with `--json`."""
