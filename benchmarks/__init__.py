"""Reproducible measurements of CPU per event, each beside a bare loop of the same work (``python -m benchmarks``)."""
