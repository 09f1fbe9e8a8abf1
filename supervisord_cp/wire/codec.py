"""Messages to and from text frames."""

from typing import Final

import msgspec

from supervisord_cp.errors import SupervisordError
from supervisord_cp.wire.messages import Message

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)


class BadMessage(SupervisordError):
    """A frame that is no message of this protocol. `kind`: what it says it is, "" where it does not."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class _Kind(msgspec.Struct):
    t: str = ""


def encode(message: Message) -> str:
    """The text frame of a message."""
    return _encoder.encode(message).decode()


def decode(frame: str | bytes) -> Message:
    """The message of a text frame.

    Raises:
        BadMessage: not JSON, of an unknown kind, or with fields of the wrong type.
    """
    try:
        return _decoder.decode(frame)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadMessage(str(error), _kind(frame)) from error


def _kind(frame: str | bytes) -> str:
    try:
        return msgspec.json.decode(frame, type=_Kind).t
    except (msgspec.DecodeError, msgspec.ValidationError):
        return ""
