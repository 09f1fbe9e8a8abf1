"""What a file declares is read off its text, and what is wrong is told with its line."""

import pytest

from supervisord_cp.plugin_host.source import read_source
from supervisord_cp.policy.declare import PolicyKind

F = "def f(): ...\n"
FROM = "from supervisord_cp.policy import "


@pytest.mark.parametrize(
    ("text", "name", "kind", "line"),
    [
        (f'{FROM}scorer\n@scorer("a")\ndef f(r, c, x): ...\n', "a", PolicyKind.SCORER, 3),
        (f'{FROM}scorer as s\n@s("a-b_9")\ndef f(r, c, x): ...\n', "a-b_9", PolicyKind.SCORER, 3),
        (f'{FROM}picker\n@picker(name="a")\nclass P: ...\n', "a", PolicyKind.PICKER, 3),
        ('import supervisord_cp.policy as p\n@p.filter("a")\ndef f(): ...\n', "a", PolicyKind.FILTER, 3),
        (
            'import supervisord_cp.policy\n@supervisord_cp.policy.scaler("a")\ndef f(): ...\n',
            "a",
            "scaler",
            3,
        ),
        ('from supervisord_cp import policy\n@policy.placer("a")\ndef f(): ...\n', "a", "placer", 3),
        (
            f'{FROM}policy, PolicyKind\n@policy(PolicyKind.SCHEDULER, "a")\ndef f(): ...\n',
            "a",
            "scheduler",
            3,
        ),
        (f'{FROM}policy\n@policy("scorer", name="a")\ndef f(): ...\n', "a", "scorer", 3),
        (
            f'{FROM}scorer\nimport x\n@x.scorer("z")\ndef g(): ...\n@scorer("a")\ndef f(): ...\n',
            "a",
            "scorer",
            6,
        ),
    ],
)
def test_declarations_are_found(text: str, name: str, kind: str, line: int) -> None:
    source = read_source("p.py", text.encode())
    assert source.problem is None
    assert source.declaration is not None
    assert (source.declaration.name, source.declaration.kind, source.declaration.line) == (name, kind, line)


def test_the_first_line_of_the_docstring_is_the_summary() -> None:
    text = f'{FROM}scorer\n@scorer("a")\ndef f(r, c, x):\n    """What it does.\n\n    More."""\n'
    source = read_source("p.py", text.encode())
    assert source.declaration is not None
    assert source.declaration.summary == "What it does."


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("def f(:\n", 1, "not Python: invalid syntax"),
        ("x = 1\n\n  y = 2\n", 3, "not Python: unexpected indent"),
        ("", 1, "declares no policy"),
        ("def scorer(n): return lambda f: f\n@scorer('a')\ndef f(): ...\n", 1, "declares no policy"),
        (f"{FROM}scorer\n@scorer\ndef f(): ...\n", 2, "@scorer needs the policy's name"),
        (f"{FROM}scorer\n@scorer()\ndef f(): ...\n", 2, "the name of the scorer must be written out"),
        (
            f"{FROM}scorer\nN = 'a'\n@scorer(N)\ndef f(): ...\n",
            3,
            "the name of the scorer must be written out",
        ),
        (f"{FROM}scorer\n@scorer('A b')\ndef f(): ...\n", 2, '"A b" cannot be a policy\'s name'),
        (f"{FROM}scorer\n@scorer('a')\nasync def f(): ...\n", 3, "a policy is not async"),
        (f"{FROM}policy\n@policy(KIND, 'a')\ndef f(): ...\n", 2, "the kind must be written out"),
        (
            f"{FROM}scorer, picker\n@scorer('a')\ndef f(): ...\n@picker('b')\ndef g(): ...\n",
            5,
            'declares a second policy, "b"; the first is in line 3',
        ),
    ],
)
def test_mistakes_are_told_with_their_line(text: str, line: int, message: str) -> None:
    source = read_source("plugins/p.py", text.encode())
    assert source.declaration is None
    assert source.problem is not None
    assert source.problem.line == line
    assert source.problem.message.startswith(message)
    assert str(source.problem).startswith(f"plugins/p.py:{line}:")


@pytest.mark.parametrize("text", [b"\x00", b"\xff\xfe", b"(" * 5000, b"# coding: nope\n"])
def test_what_is_no_python_at_all_is_a_problem_too(text: bytes) -> None:
    source = read_source("p.py", text)
    assert source.declaration is None
    assert source.problem is not None


def test_nothing_of_it_is_run() -> None:
    read_source("p.py", b"raise SystemExit('it was run')")
