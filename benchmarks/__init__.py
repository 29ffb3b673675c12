"""Measures this program and its peers on the same rows in one run: `make bench`, or `python -m benchmarks --help`."""
