"""Launches, supervises, scales and routes to fleets of vLLM engines on plain Linux hosts."""

from supervisord_cp.version import __version__

__all__ = ["__version__"]
