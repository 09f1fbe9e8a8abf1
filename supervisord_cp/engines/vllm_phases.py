"""How far vLLM's start has come, by its log. Texts drift between releases: each phase has several, and
none of them is relied on (readiness is `/health`)."""

import re
from collections.abc import Mapping
from typing import Final

from supervisord_cp.model.instance import Phase

_ANNOUNCED_BY: Final[Mapping[Phase, tuple[str, ...]]] = {
    Phase.LOADING: (
        r"Starting to load model",
        r"Time spent downloading weights",
        r"Loading \S+ checkpoint shards",
        r"Loading (?:model )?weights",
        r"Model loading took",
    ),
    Phase.COMPILING: (
        r"Using cache directory: .* for vLLM's torch\.compile",
        r"Dynamo bytecode transform",
        r"Start(?:ing)? (?:torch\.compile|compiling)",
        r"Compiling a graph",
        r"Cache the graph",
        r"Directly (?:load|lookup) ",
        r"torch\.compile (?:takes|took)",
        r"saved AOT compiled",
        r"Warming up model for the compilation",
    ),
    Phase.WARMING: (
        r"Warming up done",
        r"Available KV cache memory",
        r"[GC]PU KV cache size",
        r"# (?:GPU|CPU|cuda|cpu) blocks",
        r"Capturing (?:the model for )?CUDA graph",
        r"Graph capturing finished",
        r"init engine \(",
        r"Starting vLLM .*server on",
    ),
    Phase.READY: (r"Application startup complete",),
}
_PHASES: Final = tuple(_ANNOUNCED_BY)
_TEXTS: Final = re.compile("|".join(f"({'|'.join(texts)})" for texts in _ANNOUNCED_BY.values()))


def announced_phase(line: str) -> Phase | None:
    """The phase that a line announces, None for most lines."""
    match = _TEXTS.search(line)
    return None if match is None or match.lastindex is None else _PHASES[match.lastindex - 1]
