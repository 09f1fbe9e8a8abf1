"""Engines whose records were lost: what is left to know them by is their environment.

Every engine carries who started it, besides its nonce. One that carries our name and a nonce that no record
of ours has is an engine of an earlier life which nobody can take over.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from supervisord_cp.adapters.proctree import NONCE_VARIABLE
from supervisord_cp.model.base import Incarnation, InstanceId
from supervisord_cp.ports.process import SpawnRequest

OWNER_VARIABLE: Final = "SUPERVISORD_CP_OWNER"
INSTANCE_VARIABLE: Final = "SUPERVISORD_CP_INSTANCE"
PROC: Final = Path("/proc")


def marks(owner: str, instance: InstanceId) -> dict[str, str]:
    """What an engine of this owner carries in its environment."""
    return {OWNER_VARIABLE: owner, INSTANCE_VARIABLE: instance}


def lost_engines(owner: str, known: Collection[str], proc: Path = PROC) -> list[SpawnRequest]:
    """Engines of this owner that run with a nonce which is not `known`, as starts that were cut short: a
    sweeper finds their processes by the nonce. Blocks on the process table."""
    found: dict[str, InstanceId] = {}
    for variables in _environments(proc):
        nonce, instance = variables.get(NONCE_VARIABLE, ""), variables.get(INSTANCE_VARIABLE, "")
        ours = variables.get(OWNER_VARIABLE) == owner
        if ours and nonce and nonce not in known and instance and "/" not in instance:
            found[nonce] = InstanceId(instance)
    return [_as_request(nonce, instance) for nonce, instance in found.items()]


def _as_request(nonce: str, instance: InstanceId) -> SpawnRequest:
    return SpawnRequest(
        instance=instance,
        incarnation=Incarnation(f"{instance}.lost-{nonce[:8]}"),
        nonce=nonce,
        argv=(),
        env={},
        cwd="/",
        log_path="",
    )


def _environments(proc: Path) -> Iterator[dict[str, str]]:
    """Of all processes whose environment this user may see."""
    for folder in proc.glob("[1-9]*"):
        try:
            content = (folder / "environ").read_bytes()
        except OSError:
            continue
        pairs = (entry.partition(b"=") for entry in content.split(b"\0"))
        yield {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}
