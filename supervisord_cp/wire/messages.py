"""The messages of the one websocket that agents and routers dial to central.

JSON text frames, each an object with a `t` field. The receiver ignores fields that it does not
know; an unknown `t` is skipped and logged, so versions may differ by one release.
"""

from typing import Final

from supervisord_cp.model.base import Incarnation, Value
from supervisord_cp.model.event import Event
from supervisord_cp.model.fleet import FleetDelta, FleetSnapshot
from supervisord_cp.model.launch import DesiredNode
from supervisord_cp.model.node import NodeInventory, NodeReport
from supervisord_cp.model.router import RouterReport
from supervisord_cp.model.signal import NamedResult

PROTOCOL: Final = 1
AGENT_PATH: Final = "/api/v1/connect/agent"
ROUTER_PATH: Final = "/api/v1/connect/router"


class Hello(Value, frozen=True, kw_only=True, tag="hello", tag_field="t"):
    """The first message of the one who dials."""

    name: str
    """Node name or router id."""
    session: str
    """Random for each life of the process: tells a second process of the same name from a redial."""
    protocol: int = PROTOCOL
    version: str = ""
    inventory: NodeInventory | None = None
    """Agents only."""


class Welcome(Value, frozen=True, kw_only=True, tag="welcome", tag_field="t"):
    """Central's answer to a hello that it accepts."""

    epoch: str
    protocol: int = PROTOCOL
    version: str = ""


class Refused(Value, frozen=True, kw_only=True, tag="refused", tag_field="t"):
    """Central's answer to a hello that it does not accept; the connection is closed after it."""

    message: str


class Report(Value, frozen=True, kw_only=True, tag="report", tag_field="t"):
    """Agent to central."""

    report: NodeReport


class EngineKeys(Value, frozen=True, kw_only=True, tag="keys", tag_field="t"):
    """API keys of engines, agent to central and central to routers. Apart from all other values, so
    that those can be shown and logged."""

    keys: dict[Incarnation, str]
    """The whole set of the sender; replaces the one before."""


class Queries(Value, frozen=True, kw_only=True, tag="queries", tag_field="t"):
    """Central to router: what the named PromQL expressions said last, as old as the signals say."""

    results: dict[str, NamedResult]
    """All of them; replaces those before."""


class Events(Value, frozen=True, kw_only=True, tag="events", tag_field="t"):
    """Agent or router to central, at once."""

    events: tuple[Event, ...]


class Desired(Value, frozen=True, kw_only=True, tag="desired", tag_field="t"):
    """Central to agent."""

    desired: DesiredNode


class Resync(Value, frozen=True, kw_only=True, tag="resync", tag_field="t"):
    """Either side has missed something: send everything."""


class Snapshot(Value, frozen=True, kw_only=True, tag="snapshot", tag_field="t"):
    """Central to router: everything."""

    snapshot: FleetSnapshot


class Delta(Value, frozen=True, kw_only=True, tag="delta", tag_field="t"):
    """Central to router: what changed."""

    delta: FleetDelta


class RouterStatus(Value, frozen=True, kw_only=True, tag="router", tag_field="t"):
    """Router to central."""

    report: RouterReport


class Call(Value, frozen=True, kw_only=True, tag="call", tag_field="t"):
    """Central asks; answered by any number of `CallChunk`, the last one with `done`."""

    id: int
    method: str
    params: dict[str, str | int | float | bool | None] = {}


class CallChunk(Value, frozen=True, kw_only=True, tag="chunk", tag_field="t"):
    """A piece of an answer."""

    id: int
    data: str = ""
    done: bool = False
    error: str = ""


class CallCancel(Value, frozen=True, kw_only=True, tag="cancel", tag_field="t"):
    """Central no longer wants the answer."""

    id: int


Message = (
    Hello
    | Welcome
    | Refused
    | Report
    | EngineKeys
    | Queries
    | Events
    | Desired
    | Resync
    | Snapshot
    | Delta
    | RouterStatus
    | Call
    | CallChunk
    | CallCancel
)
