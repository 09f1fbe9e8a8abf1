"""Token files: parsing, roles, reload, permissions."""

import os
from pathlib import Path

import pytest

from supervisord_cp.adapters.tokens import TokenFile, read_token
from supervisord_cp.errors import UsageError

TEXT = "# who may do what\n\nagent: aaaa\noperator: oooo\noperator: new-oooo\nviewer:vvvv\n"


def _write(path: Path, text: str, mode: int = 0o600) -> Path:
    replacement = path.with_suffix(".new")
    replacement.write_text(text)
    replacement.chmod(mode)
    replacement.replace(path)
    return path


@pytest.mark.parametrize(
    ("header", "role"),
    [
        ("Bearer aaaa", "agent"),
        ("bearer  oooo ", "operator"),
        ("Bearer new-oooo", "operator"),
        ("Bearer vvvv", "viewer"),
        ("Bearer aaa", None),
        ("Bearer ", None),
        ("Bearer é", None),
        ("Basic aaaa", None),
        ("", None),
        (None, None),
    ],
)
def test_role_of_a_header(tmp_path: Path, header: str | None, role: str | None) -> None:
    assert TokenFile(_write(tmp_path / "tokens", TEXT)).role_of(header) == role


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("root: x\n", "tokens:1"),
        ("agent: a\nviewer\n", "tokens:2"),
        ("agent:\n", "tokens:1"),
        ("# nothing\n", "holds no token"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TokenFile(_write(tmp_path / "tokens", text))


def test_a_missing_file_and_one_that_anybody_may_write_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        TokenFile(tmp_path / "tokens")
    with pytest.raises(UsageError, match="chmod"):
        TokenFile(_write(tmp_path / "tokens", TEXT, 0o666))


def test_a_readable_file_is_accepted_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    TokenFile(_write(tmp_path / "tokens", TEXT, 0o644))
    assert "chmod o=" in caplog.text


def test_a_changed_file_counts_at_once_and_a_bad_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _write(tmp_path / "tokens", "agent: one\n")
    tokens = TokenFile(path)
    _write(path, "agent: two\n")
    assert tokens.role_of("Bearer one") is None
    assert tokens.role_of("Bearer two") == "agent"
    _write(path, "agent\n")
    for _ in range(3):
        assert tokens.role_of("Bearer two") == "agent"
    path.unlink()
    assert tokens.role_of("Bearer two") == "agent"
    assert caplog.text.count("stay as they were") == 2
    assert "two" not in caplog.text


def test_our_own_token(tmp_path: Path) -> None:
    alone = _write(tmp_path / "alone", "abc\n")
    table = _write(tmp_path / "table", TEXT)
    assert read_token(None, "agent") == ""
    assert read_token(alone, "agent") == "abc"
    assert read_token(table, "agent") == "aaaa"
    assert read_token(table, "viewer", "operator") == "vvvv"
    with pytest.raises(UsageError, match="holds no token"):
        read_token(table)
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(tmp_path / "nothing")
    os.truncate(alone, 0)
    with pytest.raises(UsageError, match="`agent: TOKEN`"):
        read_token(alone, "agent")
