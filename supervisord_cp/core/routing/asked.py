"""What a request's body says of the few things that a decision needs."""

from typing import Annotated, Any, Final

import msgspec

MOST_CHOICES: Final = 1024


class AnyBody(msgspec.Struct, gc=False):
    """Any type passes: what is wrong with a value is the engine's to say, in its own words."""

    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    user: Any = None
    previous_response_id: Any = None


Tokens = Annotated[int, msgspec.Meta(ge=0)]


class Asked(
    msgspec.Struct, frozen=True, gc=False, rename={"choices": "n", "previous": "previous_response_id"}
):
    """The answer: empty where nothing is said. Decoded from the body as it is, when all types are right."""

    model: str = ""
    stream: bool = False
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    choices: Annotated[int, msgspec.Meta(gt=0, le=MOST_CHOICES)] = 1
    user: str = ""
    previous: str = ""
    """The stored response that this one continues."""

    @property
    def limit(self) -> int | None:
        """Tokens that the answer may have, by whichever name."""
        return self.max_completion_tokens or self.max_tokens or self.max_output_tokens
