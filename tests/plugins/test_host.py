"""Files change while a daemon runs: good versions are taken over, bad ones are not, and all of it heals."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.plugin_host.host import PolicyHost
from supervisord_cp.plugin_host.registry import ROUTING_KINDS, Registry, Unresolved
from supervisord_cp.policy.testing import context, fleet, request
from tests.plugins.files import likes, scorer, write

MINE = (PolicyUse(use="mine"),)


def liked(registry: Registry) -> int:
    """The instance that the policy `mine` likes."""
    bound = registry.resolve(MINE[0], ROUTING_KINDS)
    scores = bound.spec.target(request(), fleet(3), context())
    return max(range(3), key=lambda n: scores[n])


def problem(registry: Registry) -> str:
    return str(registry.entries["mine"].problem or "")


def test_what_is_named_is_loaded_and_what_is_not_is_not(tmp_path: Path, tried: list[str]) -> None:
    write(tmp_path, "a.py", likes("mine", 1))
    write(tmp_path, "b.py", scorer("other", "return []", before="raise SystemExit('it was run')\n"))
    registry = PolicyHost([tmp_path]).refresh(MINE)
    assert liked(registry) == 1
    assert tried == [str(tmp_path / "a.py")]
    with pytest.raises(Unresolved, match='"other" is not loaded yet'):
        registry.resolve(PolicyUse(use="other"), ROUTING_KINDS)


def test_looking_runs_nothing(tmp_path: Path, tried: list[str]) -> None:
    write(tmp_path, "a.py", scorer("mine", "return []", before="raise SystemExit('it was run')\n"))
    registry = PolicyHost([tmp_path]).look()
    assert registry.entries["mine"].kind == "scorer"
    assert tried == []


def test_a_changed_file_is_taken_over_and_an_unchanged_one_is_not_tried_again(
    tmp_path: Path, tried: list[str]
) -> None:
    host = PolicyHost([tmp_path])
    write(tmp_path, "a.py", likes("mine", 1))
    first = host.refresh(MINE)
    assert host.refresh(MINE) is first
    write(tmp_path, "a.py", likes("mine", 2))
    second = host.refresh(MINE)
    assert (liked(first), liked(second)) == (1, 2)
    assert first.version("mine") != second.version("mine")
    assert len(tried) == 2


BROKEN: dict[str, str] = {
    "is no Python": "def f(:\n",
    "declares nothing": "x = 1\n",
    "raises when it is run": scorer("mine", "return []", before="1 / 0\n"),
    "raises when it is asked": scorer("mine", "return 1 / 0"),
    "answers nonsense": scorer("mine", "return []"),
    "cannot be called": scorer("mine", "return []").replace("request, candidates", "request"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_new_version_leaves_the_old_one_in_place(tmp_path: Path, tried: list[str], what: str) -> None:
    host = PolicyHost([tmp_path])
    write(tmp_path, "a.py", likes("mine", 1))
    good = host.refresh(MINE)
    write(tmp_path, "a.py", BROKEN[what])
    after = host.refresh(MINE)
    assert liked(after) == 1
    assert str(tmp_path / "a.py") in problem(after)
    assert after.entries["mine"].version == good.entries["mine"].version
    assert [name for name, _ in after.problems()] == ["mine"]
    write(tmp_path, "a.py", likes("mine", 2))
    healed = host.refresh(MINE)
    assert (liked(healed), problem(healed)) == (2, "")


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_first_version_cannot_be_used_until_it_is_mended(
    tmp_path: Path, tried: list[str], what: str
) -> None:
    host = PolicyHost([tmp_path])
    write(tmp_path, "a.py", BROKEN[what])
    registry = host.refresh(MINE)
    assert list(registry.problems())
    with pytest.raises(Unresolved) as caught:
        registry.resolve(MINE[0], ROUTING_KINDS)
    assert caught.value.passing
    write(tmp_path, "a.py", likes("mine", 2))
    assert liked(host.refresh(MINE)) == 2


def test_a_file_that_is_removed_takes_its_policy_with_it_and_brings_it_back(
    tmp_path: Path, tried: list[str]
) -> None:
    host = PolicyHost([tmp_path])
    path = write(tmp_path, "a.py", likes("mine", 1))
    host.refresh(MINE)
    path.unlink()
    gone = host.refresh(MINE)
    with pytest.raises(Unresolved, match='no routing policy is called "mine"') as caught:
        gone.resolve(MINE[0], ROUTING_KINDS)
    assert caught.value.passing
    write(tmp_path, "a.py", likes("mine", 1))
    assert liked(host.refresh(MINE)) == 1
    assert len(tried) == 2


def test_a_policy_may_move_to_another_file(tmp_path: Path, tried: list[str]) -> None:
    host = PolicyHost([tmp_path])
    write(tmp_path, "a.py", likes("mine", 1)).rename(tmp_path / "b.py")
    assert host.refresh(MINE).entries["mine"].offer.where == str(tmp_path / "b.py")


def test_a_name_that_is_used_from_now_on_is_loaded(tmp_path: Path, tried: list[str]) -> None:
    host = PolicyHost([tmp_path])
    write(tmp_path, "a.py", likes("mine", 1))
    assert host.refresh(()).entries["mine"].spec is None
    assert liked(host.refresh(MINE)) == 1


def test_what_failed_is_tried_again_when_asked(
    tmp_path: Path, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not have been the file's fault: a module that it imports was not there, say."""
    host = PolicyHost([tmp_path])
    before = "import os\nif 'LATER' not in os.environ: raise ImportError('not yet')\n"
    write(tmp_path, "a.py", scorer("mine", "return [0.0] * len(candidates)", before=before))
    assert "not yet" in problem(host.refresh(MINE))
    monkeypatch.setenv("LATER", "1")
    assert "not yet" in problem(host.refresh(MINE))
    assert problem(host.refresh(MINE, again=True)) == ""


def test_modules_of_old_versions_do_not_pile_up(tmp_path: Path, tried: list[str]) -> None:
    host = PolicyHost([tmp_path])
    for number in range(3):
        write(tmp_path, "a.py", likes("mine", number))
        host.refresh(MINE)
    modules = [name for name in sys.modules if name.startswith("supervisord_cp_policy_")]
    assert len(modules) == 1
    (tmp_path / "a.py").unlink()
    host.refresh(MINE)
    assert not [name for name in sys.modules if name.startswith("supervisord_cp_policy_")]


def test_parameters_are_those_of_the_configuration(tmp_path: Path, tried: list[str]) -> None:
    before = "class P(Value, frozen=True, kw_only=True):\n    a: int\n"
    body = "return [float(context.params.a)] * len(candidates)"
    write(tmp_path, "a.py", scorer("mine", body, before=before, arguments="params=P"))
    host = PolicyHost([tmp_path])
    use = PolicyUse(use="mine", params={"a": 3})
    assert host.refresh((use,)).resolve(use, ROUTING_KINDS).params.a == 3
    with pytest.raises(Unresolved) as caught:
        host.refresh((use,)).resolve(PolicyUse(use="mine", params={"b": 3}), ROUTING_KINDS)
    assert (caught.value.param, caught.value.hint, caught.value.passing) == ("b", "known: a", True)


@pytest.mark.process
@pytest.mark.parametrize("before", ["import os; os._exit(1)\n", "while True: pass\n"])
def test_what_would_end_or_hang_a_daemon_does_not(
    tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.py", scorer("mine", "return []", before=before))
    assert "mine" in dict(PolicyHost([tmp_path]).refresh(MINE).problems())


def test_a_registry_says_what_can_be_meant(tmp_path: Path, tried: list[str]) -> None:
    registry = PolicyHost([tmp_path]).refresh(())

    def asked(name: str, **params: Any) -> Callable[[], object]:
        return lambda: registry.resolve(PolicyUse(use=name, params=params), ROUTING_KINDS)

    table: list[tuple[Callable[[], object], str, bool]] = [
        (asked("load_balance"), 'mean "load_balanced"', False),
        (asked("qqq"), "known: ", True),
        (asked("fifo"), "is a scheduler, not a routing policy", False),
        (asked("random", x=1), "takes no parameters", False),
        (lambda: registry.expand(PolicyUse(use="prefix", params={"x": 1})), 'has no parameter "x"', False),
    ]
    for ask, told, passing in table:
        with pytest.raises(Unresolved, match=told) as caught:
            ask()
        assert caught.value.passing is passing
