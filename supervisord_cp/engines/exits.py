"""Why an engine ended that nobody asked to end: exit status first, then what its log says.

Exit codes alone mislead: vLLM exits with 0 when its engine has crashed. Texts in logs are the last
resort and drift; where none is known the cause is unknown, never a guess. Lines of level INFO to
WARNING are not looked at: they quote prompts, advice and settings.
"""

import re
from collections.abc import Iterable, Iterator
from signal import Signals
from typing import Final

from supervisord_cp.model.base import Value
from supervisord_cp.model.instance import ExitCause

MAX_EVIDENCE: Final = 300
"""Characters of a line that are kept."""

_PREFIX: Final = re.compile(
    r"^(?:\([\w.@ -]+? (?:rank=\d+ )?pid=\d+\) ?)?"
    r"(?:\[[\w.-]+\] )?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):? +(?:\d\d-\d\d \d\d:\d\d:\d\d +)?(?:\[\S+:\d+\] ?)?)?"
)
"""Process, level, time and place before a message, as vLLM and uvicorn write them."""
_QUIET: Final = frozenset({"DEBUG", "INFO", "WARNING"})

_KILLED_BY: Final = frozenset(
    {Signals.SIGKILL, Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP, Signals.SIGQUIT}
)
_PERHAPS_THE_GPU: Final = frozenset(
    {
        ExitCause.GPU_FAULT,
        ExitCause.COLLECTIVE_HANG,
        ExitCause.STALLED,
        ExitCause.ENGINE_DEAD,
        ExitCause.START_TIMEOUT,
        ExitCause.UNKNOWN,
    }
)
"""What an engine dies of when its GPU fails under it. Somebody's SIGKILL is not among them."""
_STOPPED: Final = re.compile(r"\[shutdown\] API server: shutdown triggered|Received SIG(?:TERM|INT)")
"""A clean end by a signal that vLLM catches; it exits with 0 then, too."""


class _Rule(Value, frozen=True, kw_only=True):
    """What a line of a log says about the cause."""

    cause: ExitCause
    texts: re.Pattern[str]


def _rule(cause: ExitCause, *texts: str) -> _Rule:
    return _Rule(cause=cause, texts=re.compile("|".join(texts)))


# The first line that tells is the root cause: what follows are its consequences. On one line the first
# rule wins.
_WHILE_STARTING: Final = (
    _rule(ExitCause.PORT_TAKEN, r"[Aa]ddress already in use", r"EADDRINUSE"),
    _rule(
        ExitCause.KV_CACHE,
        r"No available memory for the cache blocks",
        r"KV cache is needed, which is larger than",
        r"larger than the maximum number of tokens that can be stored in KV cache",
    ),
    _rule(
        ExitCause.MODEL_ACCESS,
        r"^(?:[\w.]+\.)?(?:HFValidation|RepositoryNotFound|GatedRepo|RevisionNotFound|HfHubHTTP)Error\b",
        r"^(?:[\w.]+\.)?(?:(?:Local)?EntryNotFoundError|OfflineModeIsEnabled|SafetensorError)\b",
        r"^OSError: (?:We couldn't connect to|You are trying to access a gated repo|Can't load)",
        r"^OSError: \S+ (?:is not a local folder|does not appear to have a file named)",
        r"Invalid repository ID or local directory specified",
        r"Cannot find any model weights with",
    ),
    _rule(
        ExitCause.CONFIGURATION,
        r": error: (?:unrecognized arguments|argument |the following arguments|ambiguous option)",
        r"^(?:[\w.]+\.)?ValidationError: \d+ validation error",
        r"^(?:ModuleNotFoundError|ImportError): ",
        r"error while loading shared libraries",
        r"no kernel image is available",
        r"CUDA driver version is insufficient",
        r"Failed to infer device type",
        r"does not recognize this architecture",
        r"are not supported for now",
        r"[Uu]nknown quantization method",
        r"trust_remote_code=True",
        r"is only supported on GPUs with compute capability",
    ),
)
_AT_ANY_TIME: Final = (
    _rule(
        ExitCause.COLLECTIVE_HANG,
        r"[Ww]atchdog caught collective operation timeout",
        r"watchdog (?:thread )?got stuck",
        r"RPC call to \w+ timed out",
        r"Timed out waiting \d+ms for (?:recv|send) operation",
    ),
    _rule(
        ExitCause.GPU_MEMORY,
        r"OutOfMemoryError",
        r"(?:CUDA|HIP) (?:error: )?out of memory",
        r"CUBLAS_STATUS_ALLOC_FAILED",
        r"less than desired GPU memory utilization",
        r"Error in memory profiling",
    ),
    _rule(
        ExitCause.HOST_MEMORY,
        r"^MemoryError\b",
        r"[Cc]annot allocate memory",
        r"can't allocate memory",
        r"std::bad_alloc",
        r"less than desired CPU memory utilization",
        r"less than requested memory for kv",
    ),
    _rule(
        ExitCause.GPU_FAULT,
        r"(?:CUDA|HIP) error: ",
        r"CUDA driver (?:initialization failed|error)",
        r"No CUDA GPUs are available",
        r"NCCL error",
        r"CU(?:BLAS|DNN)_STATUS_\w+",
        r"uncorrectable ECC",
        r"NVMLError",
    ),
)
_DEAD: Final = re.compile(
    r"EngineDeadError|EngineCore (?:encountered a fatal error|failed to start)"
    r"|Engine core initialization failed|died unexpectedly|exited unexpectedly"
)

_EXCEPTION: Final = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception)\b: \S|: error: ")
_CONSEQUENCE: Final = re.compile(
    r"EngineDeadError|See root cause above|Executor failed|[Pp]lease check the stack trace"
)
_SECRET: Final = re.compile(
    r"hf_[A-Za-z0-9]{8,}|\bsk-[A-Za-z0-9_-]{16,}"
    r"|(?i:(?<=bearer )|(?<=api_key=)|(?<=api-key=))[^\s'\",)]+"
    r"|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"
)


class Diagnosis(Value, frozen=True, kw_only=True):
    """Why an engine ended, and the line that tells."""

    cause: ExitCause
    evidence: str = ""
    """One line of the log, redacted; "" when the log says nothing."""


def diagnose(
    code: int | None, signal: int | None, log_tail: str, was_ready: bool, secrets: Iterable[str] = ()
) -> Diagnosis:
    """Why an unrequested exit happened. `log_tail` is the end of this incarnation's log; `secrets` are
    texts that must not appear in the evidence."""
    lines = list(_telling_lines(log_tail))
    cause, line = _cause(code, signal, log_tail, lines, was_ready)
    if not line and cause is not ExitCause.KILLED:  # what a killed engine complains of is not why it ended
        line = _last_error(lines)
    return Diagnosis(cause=cause, evidence=redact(line, secrets)[:MAX_EVIDENCE])


_UNEXPLAINED: Final = (ExitCause.KILLED, ExitCause.ENGINE_DEAD, ExitCause.KEEPER_LOST, ExitCause.UNKNOWN)


def with_oom_kills(found: Diagnosis, kills: int, evidence: str) -> Diagnosis:
    """What the end means when the kernel killed processes for want of memory (in words: `evidence`).

    Such a kill leaves nothing in the engine's log, so it explains only what the log does not.
    """
    if kills <= 0 or found.cause not in _UNEXPLAINED:
        return found
    return Diagnosis(cause=ExitCause.HOST_MEMORY, evidence=evidence)


def with_xids(found: Diagnosis, xids: tuple[str, ...]) -> Diagnosis:
    """What the end means when the driver has reported errors (in words) of the engine's GPUs just before.

    What the log says of one is kept: it names the call that failed.
    """
    if not xids or found.cause not in _PERHAPS_THE_GPU:
        return found
    evidence = "; ".join(filter(None, (*xids, found.evidence)))[:MAX_EVIDENCE]
    return Diagnosis(cause=ExitCause.GPU_FAULT, evidence=evidence)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these secrets and without what looks like a token."""
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    return _SECRET.sub("***", text)


def _cause(
    code: int | None, signal: int | None, log_tail: str, lines: list[str], was_ready: bool
) -> tuple[ExitCause, str]:
    ended_by = signal if signal is not None else _signal_in(code)
    if ended_by in _KILLED_BY or (code == 0 and _STOPPED.search(log_tail)):
        return ExitCause.KILLED, ""
    # Once it served, such texts are about one request: an adapter that could not be loaded, say.
    rules = _AT_ANY_TIME if was_ready else (*_WHILE_STARTING, *_AT_ANY_TIME)
    for line in lines:
        for rule in rules:
            if rule.texts.search(line):
                return rule.cause, line
    if code == 2 and not was_ready:
        return ExitCause.CONFIGURATION, ""  # how argparse ends a program whose flags it refuses
    # vLLM notes the death of its processes as a warning, too: here all lines count.
    if ended_by is not None or (code == 0 and was_ready) or _DEAD.search(log_tail):
        return ExitCause.ENGINE_DEAD, ""
    return ExitCause.UNKNOWN, ""


def _signal_in(code: int | None) -> int | None:
    """The signal that a shell around the engine reports as an exit code."""
    return code - 128 if code is not None and 128 < code <= 128 + max(Signals) else None


def _telling_lines(log_tail: str) -> Iterator[str]:
    """The messages of lines that are not quiet, without what stands before them."""
    lines = iter(log_tail.splitlines())
    for line in lines:
        match = _PREFIX.match(line)
        if match is None or match["level"] in _QUIET:
            continue
        text = line[match.end() :].strip()
        if re.search(r"validation errors? for \w+$", text):
            text = f"{text}: {next(lines, '').strip()}"  # what was wrong is on the next line
        if text:
            yield text


def _last_error(lines: list[str]) -> str:
    errors = [line for line in lines if _EXCEPTION.search(line)]
    causes = [line for line in errors if not _CONSEQUENCE.search(line)]
    return (causes or errors or [""])[-1]
