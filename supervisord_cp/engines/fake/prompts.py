"""Prompts: the text and the tokens of what a request asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from supervisord_cp.engines.fake.bodies import bad_request
from supervisord_cp.engines.fake.text import chat_prompt, detokenize, tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt, as text and as tokens."""

    text: str
    ids: Sequence[int]

    @classmethod
    def of(cls, text: str) -> "Prompt":
        return cls(text=text, ids=tokenize(text))


def chat_text(messages: list[Any]) -> str:
    """The prompt of a conversation, by the chat template.

    Raises:
        ApiError: a message is not an object with a role.
    """
    turns = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_request("Each message must be an object with a role.", "messages")
        turns.append((message["role"], content_text(message.get("content"))))
    return chat_prompt(turns)


def read_prompts(given: Any) -> list[Prompt]:
    """A text, token ids, or a list of either.

    Raises:
        ApiError: it is none of these.
    """
    if isinstance(given, str) or _is_ids(given):
        return [_prompt(given)]
    if not isinstance(given, list) or not given:
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    return [_prompt(item) for item in given]


def _prompt(item: Any) -> Prompt:
    if isinstance(item, str):
        return Prompt.of(item)
    if _is_ids(item):
        return Prompt(text=detokenize(item), ids=item)
    raise bad_request("Each prompt must be a text or a list of token ids.", "prompt")


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)
    )


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or parts; a part that is no text stands for itself."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_part_text, content))
    return str(content)


def _part_text(part: Any) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    return str(part)
