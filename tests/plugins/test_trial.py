"""Policies are tried in a process of their own: whatever they do, this one goes on."""

import pytest

from supervisord_cp.plugin_host import trial
from supervisord_cp.plugin_host.trial import Subject, judge, try_out
from tests.plugins.files import HEAD, likes, scorer

STRUCT = "class P(Value, frozen=True, kw_only=True):\n    a: int\n"


def subject(text: str, **params: object) -> Subject:
    return Subject(path="plugins/p.py", text=text.encode(), params=params or None)


def told(text: str) -> list[str]:
    return [str(problem) for problem in judge(subject(text)).problems]


def test_a_good_one_answers_all_questions() -> None:
    verdict = judge(subject(likes("a", 0)))
    assert verdict.problems == ()
    assert verdict.cases > 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (scorer("a", "return 1 / 0"), "plugins/p.py:5: an ordinary request, one instance: it raised ZeroDiv"),
        (scorer("a", "return []"), "plugins/p.py:4: an ordinary request, one instance: it did not return 1"),
        (scorer("a", "while True: pass"), "plugins/p.py:5: it did not come back within 0.05 s"),
        (
            scorer("a", "return []", before="while True: pass\n"),
            "plugins/p.py:3: does not come back when it is run",
        ),
        (
            scorer("a", "if len(candidates) > 2: raise KeyError(9)\n    return [0.0] * len(candidates)"),
            "plugins/p.py:5: an ordinary request, three with reports: it raised KeyError: 9 (and",
        ),
    ],
)
def test_what_is_wrong_is_told_once_for_each_line(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LONGEST_CALL_S", 0.05)
    (problem,) = told(text)
    assert problem.startswith(expected)


def test_parameters_without_a_default_are_needed_for_questions() -> None:
    text = scorer(
        "a", "return [float(context.params.a)] * len(candidates)", before=STRUCT, arguments="params=P"
    )
    assert "missing required field" in judge(subject(text)).skipped
    assert judge(subject(text, a=3)).cases > 50
    (problem,) = judge(subject(text, a="x")).problems
    assert "parameter a: expected `int`" in problem.message


@pytest.mark.process
def test_a_child_does_the_same() -> None:
    assert try_out(subject(likes("a", 0))).cases > 50
    (problem,) = try_out(subject(scorer("a", "return 1 / 0"))).problems
    assert problem.line == 5


@pytest.mark.process
@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("import os; os._exit(3)\n", "it ended the process that tried it, with status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n", "with status -11"),
        ("print('supervisord-cp-trial nonsense')\nraise ValueError\n", "raises ValueError when it is run"),
        ("import sys; sys.stdout.close()\n", "it ended the process that tried it"),
        ("import sys; sys.setrecursionlimit(10**6)\n", ""),
    ],
)
def test_a_child_may_die(before: str, expected: str) -> None:
    problems = try_out(subject(scorer("a", "return [0.0] * len(candidates)", before=before))).problems
    assert expected in "".join(map(str, problems))
    assert bool(problems) is bool(expected)


@pytest.mark.process
def test_a_child_that_goes_on_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TIMEOUT_S", 1.5)
    text = f"{HEAD}import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass\n"
    (problem,) = try_out(subject(text + "@scorer('a')\ndef f(r, c, x): ...\n")).problems
    assert problem.message == "it did not come to an end within 1.5 s"
