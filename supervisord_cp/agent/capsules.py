"""Crash capsules on disk: one JSON file per abnormal end, of bounded size, the newest of them."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from supervisord_cp.model.base import InstanceId
from supervisord_cp.model.capsule import Capsule

FOLDER: Final = "capsules"
MAX_BYTES: Final = 256 * 1024
MAX_STACKS: Final = 64 * 1024
"""Characters."""
KEPT: Final = 64
"""Of all instances together."""
KEPT_OF_ONE: Final = 5
"""An instance that fails again and again does not push out what is kept of others."""
PIECE: Final = 64 * 1024

_NAME: Final = re.compile(r"(?P<number>\d{8})-(?P<instance>.+)\.json")


class NoCapsule(Exception):
    """Nothing is kept; the text says so."""


class Capsules:
    """The folder of capsules. Blocks on the disk."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER

    def add(self, capsule: Capsule) -> None:
        """Write one down and remove those that are too many.

        Raises:
            OSError: the disk is full, or worse.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        kept = self._kept()
        number = kept[-1][0] + 1 if kept else 1
        path = self._folder / f"{number:08}-{capsule.instance}.json"
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(encoded(capsule))
        temporary.replace(path)
        kept.append((number, capsule.instance, path))
        for _, _, old in superfluous(kept):
            old.unlink(missing_ok=True)

    def last(self, instance: InstanceId) -> bytes:
        """The newest one of an instance, as JSON.

        Raises:
            NoCapsule: there is none.
        """
        for _, name, path in reversed(self._kept()):
            if name == instance:
                with contextlib.suppress(FileNotFoundError):
                    return path.read_bytes()
        raise NoCapsule("none that its node remembers")

    def _kept(self) -> list[tuple[int, str, Path]]:
        """(number, instance, path), the oldest first."""
        try:
            names = sorted(path.name for path in self._folder.iterdir())
        except FileNotFoundError:
            return []
        matches = [match for name in names if (match := _NAME.fullmatch(name))]
        return [(int(match["number"]), match["instance"], self._folder / match[0]) for match in matches]


def superfluous(
    kept: list[tuple[int, str, Path]], most: int = KEPT, most_of_one: int = KEPT_OF_ONE
) -> list[tuple[int, str, Path]]:
    """Which of these (the oldest first) are too many."""
    room: dict[str, int] = {}
    total, too_many = 0, []
    for one in reversed(kept):
        name = one[1]
        room[name] = room.get(name, most_of_one) - 1
        if room[name] < 0 or total >= most:
            too_many.append(one)
        else:
            total += 1
    return too_many


def encoded(capsule: Capsule, limit: int = MAX_BYTES) -> bytes:
    """A capsule as JSON of at most `limit` bytes: the beginning of its log tail, then of its stacks, is
    left out where it is too long."""
    capsule = replace(capsule, stacks=capsule.stacks[:MAX_STACKS])
    data = _json(capsule)
    while len(data) > limit and (capsule.log_tail or capsule.stacks):
        if capsule.log_tail:
            # Characters are of one to six bytes: cut a part of the excess at a time, and look again.
            cut = max(1, min(len(capsule.log_tail), (len(data) - limit) // 4))
            capsule = replace(capsule, log_tail=capsule.log_tail[cut:])
        else:
            capsule = replace(capsule, stacks=capsule.stacks[: len(capsule.stacks) // 2])
        data = _json(capsule)
    return data


def _json(capsule: Capsule) -> bytes:
    return msgspec.json.format(msgspec.json.encode(capsule), indent=1)


async def read_capsule(capsules: Capsules, instance: InstanceId) -> AsyncIterator[str]:
    """The newest capsule of an instance, in pieces that fit into messages.

    Raises:
        NoCapsule: there is none.
    """
    text = (await asyncio.to_thread(capsules.last, instance)).decode()
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]
