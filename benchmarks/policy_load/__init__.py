"""The parts of `benchmarks/policies.py`."""
