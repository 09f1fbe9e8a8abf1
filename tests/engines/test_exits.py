"""Causes of exits: recorded logs of real ends, lines of other releases, and what no log says."""

from signal import SIGABRT, SIGINT, SIGKILL, SIGSEGV, SIGTERM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.engines.exits import MAX_EVIDENCE, Diagnosis, diagnose, redact, with_oom_kills
from supervisord_cp.model.instance import ExitCause
from tests.engines.samples import labelled_lines, recorded


@pytest.mark.parametrize(
    ("log", "code", "was_ready", "cause", "evidence"),
    [
        ("unknown-flag.log", 2, False, ExitCause.CONFIGURATION, "unrecognized arguments: --no-such-flag 3"),
        ("bad-value.log", 2, False, ExitCause.CONFIGURATION, "argument --dtype: invalid choice: 'float99'"),
        ("length-too-long.log", 1, False, ExitCause.CONFIGURATION, "User-specified max_model_len (999999)"),
        ("model-missing.log", 1, False, ExitCause.MODEL_ACCESS, "Repo id must be in the form"),
        ("hub-offline.log", 1, False, ExitCause.MODEL_ACCESS, "LocalEntryNotFoundError: Cannot find"),
        ("port-taken.log", 1, False, ExitCause.PORT_TAKEN, "OSError: [Errno 98] Address already in use"),
        ("kv-cache.log", 1, False, ExitCause.KV_CACHE, "No available memory for the cache blocks"),
        ("host-memory.log", 1, False, ExitCause.HOST_MEMORY, "less than requested memory for kv (400.0 GiB)"),
        (
            "core-killed-while-starting.log",
            1,
            False,
            ExitCause.ENGINE_DEAD,
            "Engine core initialization failed",
        ),
        ("core-killed.log", 0, True, ExitCause.ENGINE_DEAD, "EngineDeadError"),
        ("worker-killed.log", 0, True, ExitCause.ENGINE_DEAD, "Executor failed"),
        ("terminated.log", 0, True, ExitCause.KILLED, ""),
        ("start-compiled.log", 0, True, ExitCause.KILLED, ""),  # ended by SIGTERM
    ],
)
def test_real_ends(log: str, code: int, was_ready: bool, cause: ExitCause, evidence: str) -> None:
    found = diagnose(code, None, recorded(log), was_ready)
    assert found.cause is cause
    assert evidence in found.evidence
    assert bool(found.evidence) == bool(evidence)


ERROR = "(VllmWorker rank=1 pid=24) ERROR 05-10 16:00:15 [multiproc_executor.py:470] "


@pytest.mark.parametrize(("cause", "line"), labelled_lines("exit-lines.txt"))
def test_ends_while_starting(cause: str, line: str) -> None:
    assert diagnose(1, None, f"{line}\nINFO:     Shutting down\n", was_ready=False).cause == cause


@pytest.mark.parametrize(("level", "line"), labelled_lines("quiet-lines.txt"))
def test_quiet_lines_are_no_evidence(level: str, line: str) -> None:
    assert level.upper() in line
    assert diagnose(1, None, line, was_ready=True) == diagnose(1, None, "", was_ready=True)
    assert diagnose(1, None, line, was_ready=False).cause is ExitCause.UNKNOWN


def test_the_first_cause_counts_and_not_what_follows() -> None:
    log = (
        f"{ERROR}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
        f"{ERROR}RuntimeError: NCCL error: remote process exited\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
    )
    found = diagnose(1, None, log, was_ready=False)
    assert found.cause is ExitCause.GPU_MEMORY
    assert found.evidence == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def test_once_it_served_a_failed_request_is_not_why_it_ended() -> None:
    """An adapter that could not be loaded says the same as a model that could not."""
    log = "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.\n"
    assert diagnose(1, None, log, was_ready=False).cause is ExitCause.MODEL_ACCESS
    assert diagnose(1, None, log, was_ready=True).cause is ExitCause.UNKNOWN
    crash = log + ERROR + "RuntimeError: CUDA error: an illegal memory access was encountered\n"
    assert diagnose(0, None, crash, was_ready=True).cause is ExitCause.GPU_FAULT


@pytest.mark.parametrize(
    ("code", "signal", "was_ready", "cause"),
    [
        (None, SIGKILL, True, ExitCause.KILLED),
        (None, SIGTERM, False, ExitCause.KILLED),
        (None, SIGINT, True, ExitCause.KILLED),
        (137, None, True, ExitCause.KILLED),  # a shell's way to say SIGKILL
        (143, None, True, ExitCause.KILLED),
        (None, SIGSEGV, True, ExitCause.ENGINE_DEAD),
        (None, SIGABRT, False, ExitCause.ENGINE_DEAD),
        (139, None, True, ExitCause.ENGINE_DEAD),
        (0, None, True, ExitCause.ENGINE_DEAD),
        (0, None, False, ExitCause.UNKNOWN),
        (2, None, False, ExitCause.CONFIGURATION),
        (2, None, True, ExitCause.UNKNOWN),
        (1, None, True, ExitCause.UNKNOWN),
        (255, None, True, ExitCause.UNKNOWN),
        (None, None, True, ExitCause.UNKNOWN),
    ],
)
def test_without_a_log(code: int | None, signal: int | None, was_ready: bool, cause: ExitCause) -> None:
    found = diagnose(code, signal, "", was_ready)
    assert (found.cause, found.evidence) == (cause, "")


def test_an_abort_is_explained_by_its_log() -> None:
    log = "terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: unknown\n"
    assert diagnose(None, SIGABRT, log, was_ready=True).cause is ExitCause.GPU_FAULT


def test_an_unknown_cause_shows_the_last_error_that_is_no_consequence() -> None:
    log = f"{ERROR}ValueError: something new\n{ERROR}RuntimeError: Executor failed.\nINFO: bye\n"
    found = diagnose(1, None, log, was_ready=True)
    assert (found.cause, found.evidence) == (ExitCause.UNKNOWN, "ValueError: something new")


@pytest.mark.parametrize(
    ("cause", "kills", "found"),
    [
        (ExitCause.KILLED, 1, ExitCause.HOST_MEMORY),
        (ExitCause.ENGINE_DEAD, 2, ExitCause.HOST_MEMORY),
        (ExitCause.UNKNOWN, 1, ExitCause.HOST_MEMORY),
        (ExitCause.KEEPER_LOST, 1, ExitCause.HOST_MEMORY),
        (ExitCause.KILLED, 0, ExitCause.KILLED),
        (ExitCause.GPU_MEMORY, 1, ExitCause.GPU_MEMORY),
        (ExitCause.CONFIGURATION, 1, ExitCause.CONFIGURATION),
    ],
)
def test_the_oom_killer_explains_what_the_log_does_not(
    cause: ExitCause, kills: int, found: ExitCause
) -> None:
    said = with_oom_kills(Diagnosis(cause=cause, evidence="line"), kills, "OOM killer")
    assert said.cause is found
    assert ("OOM killer" in said.evidence) == (found is not cause)


def test_secrets_are_not_evidence() -> None:
    log = f"{ERROR}ValueError: s3cret-key, Authorization: Bearer abc.def, hf_abcdefgh12345678, api_key=xyz\n"
    found = diagnose(1, None, log, was_ready=True, secrets=("s3cret-key", ""))
    assert found.evidence == "ValueError: ***, Authorization: Bearer ***, ***, api_key=***"
    assert redact("hf_home is a folder") == "hf_home is a folder"


@given(
    st.none() | st.integers(-1, 300),
    st.none() | st.integers(1, 64),
    st.text()
    | st.lists(st.sampled_from([ERROR, "1 validation error for X\n", "\n", "Error: x"])).map("".join),
    st.booleans(),
)
def test_any_end_has_a_cause(code: int | None, signal: int | None, log: str, was_ready: bool) -> None:
    found = diagnose(code, signal, log, was_ready)
    assert found.cause is not ExitCause.REQUESTED
    assert len(found.evidence) <= MAX_EVIDENCE
    assert "\n" not in found.evidence
