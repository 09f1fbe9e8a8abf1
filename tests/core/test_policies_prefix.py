"""Prompt prefixes: the same beginning has the same keys, and who has it is known and forgotten."""

import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisord_cp.builtin.routers.prefix_index import ENTRY_BYTES, PrefixIndex
from supervisord_cp.builtin.routers.prefix_match import PrefixMatch, PrefixMatchParams
from supervisord_cp.core.routing.prefix_keys import BLOCK_BYTES, MOST_BLOCKS, prefix_keys
from supervisord_cp.policy.routing import Affinity
from supervisord_cp.policy.testing import candidate, context, request

TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=0, max_size=1500)


def chat(*contents: str, **more: Any) -> bytes:
    messages = [{"role": "user" if n % 2 else "system", "content": text} for n, text in enumerate(contents)]
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


def shared(one: bytes, other: bytes) -> int:
    """How many blocks of two bodies are the same, from the beginning."""
    pairs = zip(prefix_keys(one), prefix_keys(other), strict=False)
    return next(
        (n for n, (a, b) in enumerate(pairs) if a != b), min(map(len, map(prefix_keys, (one, other))))
    )


@given(st.lists(TEXT, min_size=1, max_size=4), st.lists(TEXT, min_size=1, max_size=2))
def test_a_conversation_that_goes_on_keeps_its_blocks(turns: list[str], later: list[str]) -> None:
    before, after = chat(*turns), chat(*turns, *later)
    assert shared(before, after) >= len(prefix_keys(before)) - 1


@given(TEXT, TEXT)
def test_keys_stand_for_everything_before_them(one: str, other: str) -> None:
    a, b = prefix_keys(chat("x" * 600, one)), prefix_keys(chat("x" * 600, other))
    same = [x == y for x, y in zip(a, b, strict=False)]
    assert same == sorted(same, reverse=True)


@pytest.mark.parametrize(
    "other",
    [
        chat("y" * 2000),
        chat("x" * 2000, tools=[{"type": "function", "function": {"name": "f"}}]),
        chat("x" * 2000, cache_salt="mine"),
        chat("x" * 2000).replace(b'"m"', b'"adapter"'),
        json.dumps(
            {"model": "m", "system": "s", "messages": [{"role": "system", "content": "x" * 2000}]}
        ).encode(),
    ],
    ids=["text", "tools", "salt", "adapter", "system"],
)
def test_what_comes_first_makes_all_blocks_different(other: bytes) -> None:
    assert shared(chat("x" * 2000), other) == 0


@pytest.mark.parametrize(
    "more", [{"stream": True}, {"max_tokens": 7}, {"user": "u"}, {"temperature": 0.5}, {"stop": ["x"]}]
)
def test_what_is_no_part_of_the_prompt_makes_no_difference(more: dict[str, Any]) -> None:
    assert prefix_keys(chat("x" * 2000)) == prefix_keys(chat("x" * 2000, **more))


@pytest.mark.parametrize("field", ["prompt", "input", "instructions", "system"])
def test_every_kind_of_request_has_keys(field: str) -> None:
    assert len(prefix_keys(json.dumps({"model": "m", field: "x" * 2000}).encode())) == 2000 // BLOCK_BYTES


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"null", b'{"messages": ', b"[" * 100_000])
def test_what_is_no_request_has_none(body: bytes) -> None:
    assert prefix_keys(body) == ()


def test_short_prompts_have_none_and_long_ones_are_bounded() -> None:
    assert prefix_keys(chat("hello")) == ()
    assert len(prefix_keys(chat("x" * (MOST_BLOCKS + 100) * BLOCK_BYTES))) == MOST_BLOCKS


# --- the index


def blocks(start: int, count: int) -> tuple[int, ...]:
    return tuple(hash((start, n)) for n in range(count))


def test_all_who_have_a_beginning_are_known_with_its_length() -> None:
    index = PrefixIndex(1 << 20)
    index.add("a.1", blocks(1, 10))
    index.add("b.1", blocks(1, 4))
    asked = (*blocks(1, 7), *blocks(9, 5))
    assert [index.match(name, asked) for name in ("a.1", "b.1", "c.1")] == [7, 4, 0]


def test_an_incarnation_that_is_gone_is_forgotten() -> None:
    index = PrefixIndex(1 << 20)
    index.add("a.1", blocks(1, 10))
    index.forget("a.1")
    index.forget("never there")
    assert (index.match("a.1", blocks(1, 10)), len(index), index.bytes) == (0, 0, 0)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 8), st.integers(0, 60)), max_size=60),
    st.integers(1, 200),
)
@example([("a", 0, 24), ("b", 0, 18), ("b", 1, 1), ("c", 0, 7), ("b", 0, 11), ("c", 1, 12)], 72)
def test_the_index_stays_within_its_bytes_and_claims_only_what_was_sent(
    sent: list[tuple[str, int, int]], entries: int
) -> None:
    index = PrefixIndex(entries * ENTRY_BYTES)
    longest: dict[tuple[str, int], int] = {}
    for name, prompt, length in sent:
        index.add(name, blocks(prompt, length))  # type: ignore[arg-type]
        longest[name, prompt] = max(length, longest.get((name, prompt), 0))
        assert index.bytes <= entries * ENTRY_BYTES
    for name in "abc":
        for prompt in range(9):
            held = index.match(name, blocks(prompt, 60))  # type: ignore[arg-type]
            assert held <= longest.get((name, prompt), 0)
            assert index.match(name, blocks(prompt, held)) == held  # type: ignore[arg-type]


def test_what_is_asked_for_stays_and_what_is_not_goes() -> None:
    index = PrefixIndex(400 * ENTRY_BYTES)
    for n in range(100):
        index.add("a.1", blocks(0, 20))
        index.add("a.1", blocks(n + 1, 20))
    assert index.match("a.1", blocks(0, 20)) == 20
    assert index.match("a.1", blocks(1, 20)) == 0


def test_an_entry_takes_no_more_than_is_counted() -> None:
    keys = tuple(hash((n, "x")) for n in range(100_000))
    table = dict.fromkeys(keys)
    assert (sys.getsizeof(table) + sum(map(sys.getsizeof, keys))) / len(keys) <= ENTRY_BYTES


# --- the policy


def chosen(policy: PrefixMatch, *candidates: Any, **fields: Any) -> str:
    scores = policy(request(**fields), candidates, context(policy_params, request_tokens=300.0))
    return str(candidates[scores.index(max(scores))].instance.id)


policy_params = PrefixMatchParams()


def test_the_one_that_has_most_of_the_prompt_is_best_until_it_has_too_much_to_do() -> None:
    policy = PrefixMatch(policy_params)
    asked = {"prompt_tokens": 1000, "prefix": blocks(1, 10)}
    policy.on_dispatch(request(prefix=blocks(1, 5)), candidate(1), context())
    policy.on_dispatch(request(prefix=blocks(1, 9)), candidate(2), context())
    assert chosen(policy, candidate(0), candidate(1), candidate(2), **asked) == "chat-2"
    assert chosen(policy, candidate(0), candidate(1), candidate(2, booked_prefill=500), **asked) == "chat-1"
    assert chosen(policy, candidate(0), candidate(2, booked_prefill=899), **asked) == "chat-2"
    assert chosen(policy, candidate(0), candidate(2, booked_prefill=901), **asked) == "chat-0"


def test_a_restarted_instance_has_nothing_cached() -> None:
    policy = PrefixMatch(policy_params)
    asked = {"prompt_tokens": 1000, "prefix": blocks(1, 10)}
    policy.on_dispatch(request(prefix=blocks(1, 10)), candidate(1), context())
    assert chosen(policy, candidate(0), candidate(1, booked_decode=10), **asked) == "chat-1"
    policy.on_instance_reset("chat-1.a")  # type: ignore[arg-type]
    assert chosen(policy, candidate(0), candidate(1, booked_decode=10), **asked) == "chat-0"
    policy.on_dispatch(request(prefix=blocks(1, 10)), candidate(1), context())
    assert chosen(policy, candidate(0), candidate(1, life="b", booked_decode=10), **asked) == "chat-0"


def test_it_says_whether_a_prompt_went_where_most_of_it_is() -> None:
    policy = PrefixMatch(policy_params)

    def sent(length: int, number: int, start: int = 1) -> Any:
        return policy.on_dispatch(request(prefix=blocks(start, length)), candidate(number), context())

    assert sent(0, 1) is None
    assert [sent(5, 1), sent(5, 1), sent(9, 1)] == [Affinity.NEW, Affinity.HIT, Affinity.HIT]
    assert sent(9, 2) is Affinity.MOVED
    assert [sent(9, 1), sent(9, 2)] == [Affinity.HIT, Affinity.HIT], "both have it now"
    assert sent(12, 1) is Affinity.HIT
    assert sent(12, 2) is Affinity.MOVED, "it has some, the other one has more"
    assert sent(4, 1, start=2) is Affinity.NEW
    for number in (1, 2):
        policy.on_instance_reset(candidate(number).instance.incarnation)
    assert sent(5, 1) is Affinity.NEW


def test_without_a_prefix_work_decides() -> None:
    assert chosen(PrefixMatch(policy_params), candidate(0, booked_decode=10), candidate(1)) == "chat-1"
