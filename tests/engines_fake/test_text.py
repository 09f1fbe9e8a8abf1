"""The tokenizer gives back what it took; the model is a function of the bytes before."""

from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.engines.fake.text import (
    VOCABULARY,
    Continuation,
    chat_prompt,
    count_tokens,
    detokenize,
    token_bytes,
    token_id,
    tokenize,
)


def answer(prompt: str, tokens: int, choice: int = 0) -> str:
    continuation = Continuation(prompt, choice)
    return b"".join(continuation.next() for _ in range(tokens)).decode()


@given(st.text())
def test_tokens_give_back_the_text(text: str) -> None:
    tokens = tokenize(text)
    assert detokenize(tokens) == text
    assert len(tokens) == count_tokens(text)


@given(st.binary(min_size=1, max_size=6))
def test_an_id_is_its_bytes(piece: bytes) -> None:
    assert token_bytes(token_id(piece)) == piece


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20))
def test_any_ids_can_be_read(tokens: list[int]) -> None:
    assert isinstance(detokenize(tokens), str)


def test_ids_fit_into_the_exact_integers_of_a_double() -> None:
    assert all(token_id(piece) < 2**53 for piece in VOCABULARY)


def test_english_has_a_few_characters_per_token() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 20
    assert 3 < len(text) / count_tokens(text) < 6


@given(st.text(max_size=50), st.integers(1, 60), st.integers(0, 59))
def test_a_prompt_with_the_begun_answer_goes_on_as_the_answer_did(prompt: str, tokens: int, cut: int) -> None:
    cut = min(cut, tokens)
    whole = answer(prompt, tokens)
    begun = answer(prompt, cut)
    assert begun + answer(prompt + begun, tokens - cut) == whole


def test_prompts_and_choices_have_answers_of_their_own() -> None:
    assert len({answer(f"prompt {number}", 20) for number in range(100)}) == 100
    assert answer("hello", 20, choice=0) != answer("hello", 20, choice=1)


def test_the_answer_to_a_prompt_never_changes() -> None:
    assert answer(chat_prompt([("user", "hello")]), 6) == " than these型 play boy low"
