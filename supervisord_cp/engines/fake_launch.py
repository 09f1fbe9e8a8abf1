"""Starting the fake engine: vLLM's command line, run by our own interpreter."""

import sys
from typing import Final

from supervisord_cp.engines.base import Capabilities
from supervisord_cp.engines.vllm import VllmEngine
from supervisord_cp.engines.vllm_probe import SWITCHES_UNSEEN, WANTED
from supervisord_cp.version import __version__

MODULE: Final = "supervisord_cp.engines.fake"


class FakeEngine(VllmEngine):
    """The engine `fake`: vLLM's process tree, flags, endpoints and metrics, without a model."""

    sleeps_on = ("cuda", "cpu")

    @property
    def kind(self) -> str:
        return "fake"

    def probe(self, executable: str) -> Capabilities:
        """It is always there."""
        return Capabilities(
            executable=sys.executable,
            version=__version__,
            flags=frozenset(WANTED),
            switches=SWITCHES_UNSEEN,
        )

    def launcher(self, found: Capabilities) -> tuple[str, ...]:
        """What comes before `serve`."""
        return (found.executable, "-m", MODULE)
