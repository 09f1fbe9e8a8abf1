"""Whether the router that runs here was compiled when it was installed."""

from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from typing import Final

HEART: Final = "supervisord_cp.router.flow"


def compiled(module: str = HEART) -> bool:
    """Whether a module is an extension module: those of the router are compiled together, or none is."""
    spec = find_spec(module)
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)


def described(module: str = HEART) -> str:
    """It in a word, for a log."""
    return "compiled" if compiled(module) else "interpreted"
