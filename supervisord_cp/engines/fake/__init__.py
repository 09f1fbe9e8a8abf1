"""A program that behaves as `vllm serve` does, as far as a supervisor and a router can tell.

Standard library only (and setproctitle), so that it starts in a tenth of a second and many fit on one
machine. Its knobs are documented in docs/fake-engine.md.
"""
