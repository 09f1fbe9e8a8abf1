"""Supervisors under the same faults with the same fake engine; see `benchmarks/faults.py`."""
