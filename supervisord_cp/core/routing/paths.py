"""Which paths are forwarded to engines, and which need the deployment's leave."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

_PLAIN: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/rerank",
        "/v1/score",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/tokenize",
        "/detokenize",
    }
)
"""Forwarded, and written without any trick: the ones that a look into a set settles."""

_INFERENCE: Final = frozenset(
    {
        "/tokenize",
        "/detokenize",
        "/tokenizer_info",
        "/version",
        "/invocations",
        "/pooling",
        "/classify",
        "/score",
        "/rerank",
        "/generative_scoring",
        "/inference/v1/generate",
    }
)
_INFERENCE_PREFIXES: Final = ("/v1/", "/v2/", "/cohere/v2/")
_CONTROL_WORDS: Final = frozenset(
    {
        "abort",
        "abort_requests",
        "collective_rpc",
        "fault_tolerance",
        "is_paused",
        "is_scaling_elastic_ep",
        "is_sleeping",
        "kv_event_sources",
        "load",
        "load_lora_adapter",
        "metrics",
        "pause",
        "release_kv_cache_memory",
        "resume",
        "scale_elastic_ep",
        "server_info",
        "sleep",
        "start_profile",
        "stop_profile",
        "unload_lora_adapter",
        "wake_up",
    }
)
_CONTROL_STARTS: Final = ("reset_", "update_", "init_weight", "get_weight", "finish_weight")
_MOST_DECODINGS: Final = 4


def _decoded(path: str) -> str:
    """Percent-decoded until nothing is left to decode, with `\\` taken for `/`."""
    for _ in range(_MOST_DECODINGS):
        once = unquote(path)
        if once == path:
            break
        path = once
    return path.replace("\\", "/")


def normal_path(path: str) -> str:
    """The path as the most generous server might read it: decoded, parameters (`;…`), empty and dot
    segments removed, lower case."""
    segments: list[str] = []
    for segment in _decoded(path).split("/"):
        name = segment.partition(";")[0].strip()
        if name == "..":
            del segments[-1:]
        elif name not in ("", "."):
            segments.append(name.lower())
    return "/" + "/".join(segments)


def tricky(path: str) -> bool:
    """Whether servers may disagree about what the path means. A slash at the end is no trick."""
    decoded = _decoded(path)
    if not decoded.startswith("/") or "//" in decoded or ";" in decoded or "%" in decoded:
        return True
    return any(segment.strip() != segment or segment in (".", "..") for segment in decoded.split("/"))


def forwarded(path: str) -> bool:
    """Whether the path is for every client: an inference path of vLLM, or an unknown one under `/v1/`.

    All else (control routes, metrics, documentation pages, unknown paths at the top) needs leave, and so
    does a path that servers may read in more than one way: what is checked is what is forwarded.
    """
    if path in _PLAIN:
        return True
    if tricky(path):
        return False
    normal = normal_path(path)
    if normal in _INFERENCE:
        return True
    prefix = next((prefix for prefix in _INFERENCE_PREFIXES if normal.startswith(prefix)), None)
    if prefix is None:
        return False
    word = normal.removeprefix(prefix).partition("/")[0]
    return word not in _CONTROL_WORDS and not word.startswith(_CONTROL_STARTS)


def allowed(path: str, allow_paths: Iterable[str]) -> bool:
    """Whether a deployment's `allow_paths` names the path."""
    normal = normal_path(path)
    return any(normal_path(name) == normal for name in allow_paths)
