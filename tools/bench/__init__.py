"""Benchmarks: each figure beside its limit, or beside a peer measured in the same run.

Run ``python -m tools.bench``; docs/benchmarks.md tells how to read what it prints. Absolute figures
are of the machine at hand and of what else it does; compare ratios.
"""
