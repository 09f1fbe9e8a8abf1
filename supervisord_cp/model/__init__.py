"""The values that flow between agents, central, routers and policies.

Frozen, keyword-only, without behaviour beyond what follows from their own fields. Units are in
names (`_s`, `_ms`, `_bytes`). No I/O, no clocks: a moment is an age, never a timestamp.
"""
