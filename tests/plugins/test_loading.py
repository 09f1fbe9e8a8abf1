"""A file is run once, and what it declares is looked at from all sides."""

import sys

import pytest

from supervisord_cp.plugin_host import loading
from supervisord_cp.plugin_host.loading import Unusable, load_entry_point, load_source
from supervisord_cp.plugin_host.source import read_source
from supervisord_cp.policy.params import ParamsError, read_params
from tests.plugins.files import HEAD, scorer


def load(text: str) -> object:
    return load_source(read_source("p.py", text.encode()))


def problem(text: str) -> str:
    with pytest.raises(Unusable) as caught:
        load(text)
    return str(caught.value.problem)


def test_a_policy_is_loaded() -> None:
    spec = load(scorer("a", "return [0.0] * len(candidates)"))
    assert spec.name == "a"  # type: ignore[attr-defined]
    assert spec.target(None, [1, 2], None) == [0.0, 0.0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("style", ["Value, frozen=True, kw_only=True", "dataclass"])
def test_parameters_may_be_a_struct_or_a_dataclass_and_annotations_strings(style: str) -> None:
    head = "from __future__ import annotations\n"
    if style == "dataclass":
        head += "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    a: int = 1\n"
        text = head + scorer("a", "return []", arguments="params=P").partition("\n")[2]
        text = text.replace(HEAD, "").replace("from dataclasses", HEAD + "from dataclasses")
    else:
        text = head + HEAD + f"class P({style}):\n    a: int = 1\n"
        text += "@scorer('a', params=P)\ndef f(request, candidates, context): ...\n"
    spec = load(text)
    assert read_params({"a": 5}, spec.params).a == 5  # type: ignore[attr-defined]
    with pytest.raises(ParamsError, match='has no parameter "b"; known: a'):
        read_params({"b": 5}, spec.params)  # type: ignore[attr-defined]
    with pytest.raises(ParamsError, match="parameter a: expected `int`"):
        read_params({"a": "x"}, spec.params)  # type: ignore[attr-defined]


F = "def f(r, c, x): ...\n"
CALL = "    def __call__(self, r, c, x): ...\n"
STRUCT = "class P(Value, frozen=True, kw_only=True):\n    a: int = 1\n"
UNFIT = {
    "raises": ("1 / 0\n", "p.py:3: raises ZeroDivisionError when it is run: division by zero"),
    "imports what is not there": ("import nope\n", "p.py:3: raises ModuleNotFoundError when it is run"),
    "ends the process": ("raise SystemExit(3)\n", "p.py:3: raises SystemExit when it is run: 3"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_raises_is_told_with_its_line(what: str) -> None:
    before, message = UNFIT[what]
    assert problem(scorer("a", "return []", before=before)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{HEAD}@scorer('a')\ndef f(request): ...\n",
            "f cannot be called with (request, candidates, context)",
        ),
        (
            f"{HEAD}@picker('a')\ndef f(request, candidates, context): ...\n",
            "(request, candidates, scores, context)",
        ),
        (f"{HEAD}@scorer('a')\ndef f(r, c, x, more): ...\n", "missing a required argument: 'more'"),
        (f"{HEAD}{STRUCT}@scaler('a', params=P)\ndef f(view): ...\n", "(view, params=…)"),
        (f"{HEAD}@scaler('a')\nclass S:\n    def __call__(self, view): ...\n", "a scaler is a function"),
        (f"{HEAD}@placer('a')\nclass S:\n    def __call__(self, view): ...\n", "a placer is a function"),
        (f"{HEAD}@scorer('a')\nclass S: ...\n", "class S has no method __call__"),
        (
            f"{HEAD}@scorer('a')\nclass S:\n    def __init__(self, x): ...\n{CALL}",
            "S() cannot be called with ()",
        ),
        (
            f"{HEAD}{STRUCT}@scorer('a', params=P)\nclass S:\n{CALL}",
            "S() cannot be called with (params)",
        ),
        (
            f"{HEAD}@scorer('a')\nclass S:\n{CALL}    def on_dispatch(self): ...\n",
            "S.on_dispatch cannot be called with (request, candidate, context)",
        ),
        (f"{HEAD}@scorer('a')\ndef f(r, c, x):\n    yield 1.0\n", "f must be an ordinary function"),
        (
            f"{HEAD}@scorer('a', api=99)\n{F}",
            "was written for version 99 of the policy API",
        ),
        (f"{HEAD}@scorer('a', params=dict)\n{F}", "params = dict must be a frozen"),
        (f"{HEAD}@scorer('a', params=3)\n{F}", "params = 3 is no class"),
        (
            f"{HEAD}import dataclasses\n@dataclasses.dataclass\nclass P: ...\n@scorer('a', params=P)\n{F}",
            "params = P must be frozen",
        ),
        (f"{HEAD}@scheduler('a', refresh_s=-1.0)\ndef f(w, x): ...\n", "refresh_s is below 0"),
        (f"{HEAD}@scorer('a')\ndef f(r, c, x): ...\nf = None\n", "what it declares when it is run"),
        (f"{HEAD}@scorer('a')\ndef f(r, c, x): ...\n@scorer('b')\ndef g(r, c, x): ...\n", "a second policy"),
    ],
)
def test_what_cannot_be_called_as_it_will_be_is_refused(text: str, message: str) -> None:
    told = problem(text)
    assert message in told
    assert told.startswith("p.py:")


def test_modules_of_what_was_refused_do_not_stay() -> None:
    before = set(sys.modules)
    problem(scorer("a", "return []", before="raise ValueError\n"))
    assert set(sys.modules) == before


def test_a_policy_that_is_imported_is_not_declared_again() -> None:
    text = HEAD + "from supervisord_cp.builtin.routers.random import random\n"
    assert "declares no policy" in problem(text)


# --- installed packages


class Point:
    """An entry point."""

    def __init__(self, found: object) -> None:
        self.name, self.value, self._found = "mine", "package.module:policy", found

    def load(self) -> object:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def offered(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    monkeypatch.setattr(loading, "entry_points", lambda: {"mine": Point(found)})


def test_a_package_may_offer_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load(scorer("mine", "return [0.0] * len(candidates)"))
    offered(monkeypatch, spec.target)  # type: ignore[attr-defined]
    assert load_entry_point("mine").name == "mine"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (ImportError("no such module"), "raises ImportError when it is imported: no such module"),
        (lambda r, c, x: [], "does not declare a policy of that name"),
    ],
)
def test_what_a_package_offers_is_looked_at_too(
    monkeypatch: pytest.MonkeyPatch, found: object, message: str
) -> None:
    offered(monkeypatch, found)
    with pytest.raises(Unusable, match=f"mine = package.module:policy: {message}"):
        load_entry_point("mine")


def test_a_package_that_is_gone_is_told() -> None:
    with pytest.raises(Unusable, match="no installed package offers it"):
        load_entry_point("never-there")
