"""Trying a policy out in a process of its own, where it can do no harm: it may loop, crash or end the process
without anything happening to a daemon.

`python -m supervisord_cp.plugin_host.trial` is the child: it is given the policy on standard input and tells
on standard output what is wrong with it.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from supervisord_cp.core.policies.guard import Overrun
from supervisord_cp.errors import Problem
from supervisord_cp.plugin_host.loading import Unusable, load_entry_point, load_source, place_of
from supervisord_cp.plugin_host.source import read_source
from supervisord_cp.plugin_host.watch import AlarmWatch
from supervisord_cp.policy.conformance import Failure, conformance, number_of_cases
from supervisord_cp.policy.declare import PolicySpec
from supervisord_cp.policy.params import ParamsError, read_params

TIMEOUT_S: Final = 30.0
LONGEST_CALL_S: Final = 1.0
_MARK: Final = "\nsupervisord-cp-trial "


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried."""

    path: str = ""
    """A file, for messages: what is run is `text`."""
    text: bytes = b""
    entry_point: str = ""
    """Or a policy of an installed package."""
    params: dict[str, Any] | None = None
    """As written in the configuration; None: not known, so that those without a default have no value."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came out."""

    problems: tuple[Problem, ...] = ()
    cases: int = 0
    """Questions that it was asked."""
    skipped: str = ""
    """Why it was asked none."""


def try_out(subject: Subject) -> Verdict:
    """Run a policy and the questions of the conformance suite in a child process. Takes a while."""
    argv = [sys.executable, "-P", "-m", __name__]
    given = msgspec.json.encode(subject)
    try:
        ended = subprocess.run(argv, input=given, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return _verdict(subject, f"did not come to an end within {TIMEOUT_S:g} s")
    except OSError as error:
        return _verdict(subject, f"could not be tried: {error}")
    last = ended.stdout.decode("utf-8", "replace").rpartition(_MARK)[2]
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(last, type=Verdict)
    return _verdict(subject, f"ended the process that tried it, with status {ended.returncode}")


def judge(subject: Subject) -> Verdict:
    """The same in this process, in its main thread."""
    watch = AlarmWatch(LONGEST_CALL_S)
    watch.arm()
    try:
        with watch.around():
            spec = _load(subject)
        return _questioned(subject, spec, watch)
    except Unusable as error:
        return Verdict(problems=(error.problem,))
    except Overrun as error:
        message = f"did not come back within {LONGEST_CALL_S:g} s"
        return _verdict(subject, message, place_of(error, subject.path))
    finally:
        watch.disarm()


def _load(subject: Subject) -> PolicySpec:
    if subject.entry_point:
        return load_entry_point(subject.entry_point)
    return load_source(read_source(subject.path, subject.text))


def _questioned(subject: Subject, spec: PolicySpec, watch: AlarmWatch) -> Verdict:
    try:
        params = read_params(subject.params or {}, spec.params)
    except ParamsError as error:
        if subject.params is None:
            return Verdict(skipped=f"it {error}" if error.param else str(error))
        return _verdict(subject, str(error))
    failures = conformance(spec, params, timer=time.perf_counter, around=watch.around)
    if not failures:
        return Verdict(cases=number_of_cases(spec, params))
    return Verdict(problems=tuple(_by_line(subject, failures)))


def _by_line(subject: Subject, failures: list[Failure]) -> Iterator[Problem]:
    """One problem for each line that is at fault, with the first case that showed it."""
    declared_at = _line(subject)
    found: dict[int, list[Failure]] = {}
    for failure in failures:
        line = 0 if failure.error is None else place_of(failure.error, subject.path)
        found.setdefault(line or declared_at, []).append(failure)
    for line, alike in found.items():
        more = f" (and {len(alike) - 1} cases more)" if len(alike) > 1 else ""
        message = f"{alike[0].case}: it {alike[0].what}{more}"
        yield Problem(message=message, path=subject.path, line=line)


def _verdict(subject: Subject, message: str, line: int = 0) -> Verdict:
    problem = Problem(message=f"it {message}", path=subject.path, line=line or _line(subject))
    return Verdict(problems=(problem,))


def _line(subject: Subject) -> int:
    declaration = read_source(subject.path, subject.text).declaration
    return 0 if declaration is None else declaration.line


def main() -> None:
    """The child."""
    subject = msgspec.json.decode(sys.stdin.buffer.read(), type=Subject)
    verdict = judge(subject)
    sys.stdout.write(f"{_MARK}{msgspec.json.encode(verdict).decode()}\n")


if __name__ == "__main__":
    main()
