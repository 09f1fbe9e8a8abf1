"""One request on its way: waiting, sent, answered, over."""

from collections.abc import Callable
from typing import Final

from supervisord_cp.core.routing.lane import Lane
from supervisord_cp.core.routing.leases import Account, Lease
from supervisord_cp.core.routing.rejection import Rejection
from supervisord_cp.core.routing.retry import Miss
from supervisord_cp.core.routing.tail import Tail
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.request import RoutingRequest
from supervisord_cp.policy.scheduling import WaitingRequest
from supervisord_cp.router.answers import CLIENT_GONE, id_line, messages_line, reject
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.held import Held, begins_with_error
from supervisord_cp.router.host import Host
from supervisord_cp.router.http1.head import ResponseHead
from supervisord_cp.router.metrics import DeploymentFigures
from supervisord_cp.router.outgoing import asks_to_switch, upstream_message
from supervisord_cp.router.traits import traits_of
from supervisord_cp.router.upstream import AnswerReader, UpstreamConnection

SWITCHING: Final = 101
_FAILED: Final = 500
_FULL: Final = 503


class Flow(AnswerReader):
    """Listens to both sides of one request. Every way out goes through `_finish`."""

    __slots__ = (
        "_answer",
        "_believed",
        "_held",
        "_host",
        "_id_line",
        "_instance_line",
        "_lease",
        "_length",
        "_may_stream",
        "_tail",
        "_upstream",
        "_waits_since",
        "account",
        "arrived_at",
        "body_bytes",
        "broke",
        "choices",
        "cut",
        "decode",
        "dispatched_at",
        "events",
        "exchange",
        "expiry",
        "figures",
        "first_byte_at",
        "first_wait_at",
        "held_back",
        "is_over",
        "lane",
        "losses",
        "pin",
        "prompt_tokens",
        "refusals",
        "request",
        "status",
        "tokens",
        "traits",
        "trial",
        "waited_s",
    )

    def __init__(
        self,
        host: Host,
        exchange: Exchange,
        lane: "Lane[Flow]",
        request: RoutingRequest,
        figures: DeploymentFigures,
        now: float,
        decode: int,
        choices: int,
        pin: Incarnation | None,
    ) -> None:
        """`figures` are its deployment's, `decode` is what is expected of the answer, in tokens, `pin` the
        only incarnation that can answer, such as the one that stores a response."""
        self._host = host
        self.exchange = exchange
        self.lane = lane
        self.request = request
        self.traits = traits_of(exchange.head)
        self.figures = figures
        self.prompt_tokens = request.prompt_tokens
        self.tokens = self.prompt_tokens + decode
        """Work, prompt and answer."""
        self.body_bytes = len(exchange.body)
        self.decode = decode
        self.choices = choices
        self.pin = pin
        self.arrived_at = now
        self.first_wait_at = 0.0
        self.waited_s = 0.0
        self.dispatched_at = 0.0
        self.first_byte_at = 0.0
        """0 until an engine's answer begins."""
        self.losses = 0
        self.refusals = 0
        self.status = 0
        self.cut = False
        """Whether the answer broke off after it had begun, or ended in an error event."""
        self.broke = False
        """Whether it was the engine that did so."""
        self.held_back = False
        """Whether the client was too slow for the engine at any time."""
        self.trial = False
        """Whether it was sent to an instance on trial."""
        self.events = 0
        self.account: Account | None = None
        self.expiry: Callable[[], None] | None = None
        """Cancels the deadline's timer."""
        self.is_over = False
        self._lease: Lease | None = None
        self._upstream: UpstreamConnection | None = None
        self._answer: ResponseHead | None = None
        self._length: int | None = None
        self._id_line = id_line(request.id)
        self._instance_line = b""
        self._tail: Tail | None = None
        self._held: Held | None = None
        self._believed = False
        self._may_stream = True
        self._waits_since = 0.0
        exchange.events = self

    @property
    def key(self) -> str:
        """Whose it is."""
        return self.request.key

    @property
    def waiting(self) -> WaitingRequest:
        """The request as schedulers see it."""
        return WaitingRequest(request=self.request, arrived=self.arrived_at, decode_tokens=self.decode)

    @property
    def started(self) -> bool:
        """Whether the client has seen any of the answer."""
        return self.status != 0

    @property
    def tail(self) -> Tail:
        """The end of the answer, as far as there is one."""
        return self._tail or Tail()

    # --- the dispatcher's calls

    def dispatch(self, account: Account, now: float) -> None:
        """Send the request to an instance."""
        self.account = account
        self.dispatched_at = now
        self.trial = account.on_trial
        self._lease = account.open(self.prompt_tokens, self.decode)
        self.lane.dispatched(self.request, account, now)
        connection = self._host.pools.take(account, now)
        if connection is None:
            self._host.pools.dial(account, self)
        else:
            self._send(connection, account, now)

    def reject(self, rejection: Rejection) -> None:
        """Answer it ourselves, while nothing of an answer has been sent."""
        if not self.is_over and not self.started:
            self.status = rejection.status
            reject(self.exchange, rejection, self.request.id)
            self._finish()

    def waits(self, now: float) -> None:
        """It stands in line from now on."""
        self._waits_since = now
        if not self.first_wait_at:
            self.first_wait_at = now

    def waited(self, now: float) -> None:
        """It leaves the line."""
        self.waited_s += now - self._waits_since

    def cut_off(self) -> None:
        """Break the answer off, whatever there is of it."""
        if not self.is_over:
            self.cut = True
            self.exchange.abort()
            self._finish()

    def believe(self) -> None:
        """What was held back is the answer after all."""
        held, self._held, self._believed = self._held, None, True
        if held is None or self.is_over:
            return
        if held.data:
            self.answer_data(held.data)
        if held.whole:
            self.answer_end()

    def disbelieve(self, why: str) -> None:
        """What was held back came from a dead engine: another one will know better."""
        if self._held is not None and not self.is_over:
            self._answer = self._tail = self._held = None
            self._miss(Miss.LOST, why)

    # --- the connection's calls

    def connected(self, connection: UpstreamConnection) -> None:
        """A connection is there: send."""
        account = self.account
        if self.is_over or account is None:
            self._host.pools.keep(connection)
        else:
            self._send(connection, account, self._host.clock())

    def _send(self, connection: UpstreamConnection, account: Account, now: float) -> None:
        self._upstream = connection
        head, deadline_ms = self.exchange.head, self.request.deadline_ms
        left_ms = None if deadline_ms is None else max(0, deadline_ms - int(1000 * (now - self.arrived_at)))
        lines = self._id_line + self._host.credentials.lines(head, account.instance.incarnation)
        message = upstream_message(self.exchange, connection.endpoint, lines, left_ms)
        connection.send(self, message, now, head.method == b"HEAD")

    def unreachable(self, why: str) -> None:
        """No connection could be made."""
        if not self.is_over:
            self._miss(Miss.UNREACHABLE, why)

    def exhausted(self, why: str) -> None:
        """This host has nothing left to make a connection with."""
        if not self.is_over:
            self._host.exhausted(self, why)

    def answer_head(self, head: ResponseHead, length: int | None) -> bool:
        if head.status == _FULL and self._host.may_be_refused(self):
            assert self._upstream is not None
            self._upstream.discard_answer()
            self._upstream = None
            self._miss(Miss.FULL, "the engine answered 503")
            return False
        self._answer = head
        self._length = length
        assert self._upstream is not None
        self._instance_line = self._upstream.endpoint.instance_line
        if self.traits.is_messages:
            self._instance_line += messages_line(self.request.id)
        if head.status == SWITCHING:
            self._switch(head)
            return False
        self._tail = Tail()
        self._may_stream = not head.is_json
        if head.status == _FAILED:
            self._held = Held()
        return not self.exchange.takes_chunks

    def answer_data(self, data: bytes) -> None:
        tail = self._tail
        if tail is None:
            self.exchange.write(data)
            return
        if self._answer is not None:
            if (self._held is not None or begins_with_error(data)) and self._holds_back(data):
                return
            self._start(self._answer, data)
        if self._may_stream:
            self.events += data.count(b"data:")
        tail.add(data)
        self.exchange.write(data)

    def answer_end(self) -> None:
        self._upstream = None
        if self._held is not None and not self._held.whole:
            self._held.whole = True
            self._host.doubted(self)
            return
        if self._answer is not None:
            self._start(self._answer, b"")
        if self.events and self.tail.failed():
            self.cut = self.broke = True
        self.exchange.end()
        self._finish()

    def answer_lost(self, why: str, *, stale: bool) -> None:
        self._upstream = None
        if self.started:
            self.broke = True
            self.cut_off()
        else:
            self._answer = self._tail = self._held = None
            self._miss(Miss.STALE if stale else Miss.LOST, why)

    def answer_invalid(self, why: str) -> None:
        self._upstream = None
        if self.started:
            self.broke = True
            self.cut_off()
        else:
            self._host.invalid(self, why)

    def engine_slow(self) -> None:
        if self.status == SWITCHING:
            self.exchange.hold_reading(True)

    def engine_ready(self) -> None:
        if self.status == SWITCHING:
            self.exchange.hold_reading(False)

    # --- the client's calls

    def client_gone(self) -> None:
        if not self.is_over:
            if self.status != SWITCHING:
                self.status = CLIENT_GONE
            self._finish()

    def client_slow(self) -> None:
        self.held_back = True
        if self._upstream is not None:
            self._upstream.hold_reading(True)

    def client_ready(self) -> None:
        if self._upstream is not None:
            self._upstream.hold_reading(False)

    def client_data(self, data: bytes) -> None:
        if self._upstream is not None:
            self._upstream.write(data)

    # --- inside

    def _holds_back(self, data: bytes) -> bool:
        """Whether the beginning of the answer is kept until it is known what to think of it."""
        if self._held is None:
            if self._believed:
                return False
            self._held = Held()
        if not self._held.add(data):
            self.believe()
        return True

    def _start(self, head: ResponseHead, data: bytes) -> None:
        """Pass on the head, now that something goes with it: until here another instance could answer."""
        self._answer = None
        self._first_bytes(head.status, data)
        framed = head.chunked and self.exchange.takes_chunks
        fields = head.fields + self._id_line + self._instance_line
        self.exchange.start(head.status, fields, self._length, framed)

    def _switch(self, head: ResponseHead) -> None:
        if not asks_to_switch(self.exchange):
            assert self._upstream is not None
            self._upstream.leave()
            self.answer_invalid("it switches protocols unasked")
            return
        self._answer = None
        self._first_bytes(SWITCHING, b"")
        self.exchange.switch(head.fields + self._id_line + self._instance_line)

    def _first_bytes(self, status: int, data: bytes) -> None:
        self.status = status
        self.exchange.body = b""
        if self._lease is not None:
            self._lease.first_byte()
        self._host.answered(self, status, data)

    def _miss(self, miss: Miss, why: str) -> None:
        """Give the lease back and let the dispatcher decide."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None
        self._host.missed(self, miss, why)

    def _finish(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._lease is not None:
            self._lease.close()
            self._lease = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if self.status == SWITCHING:
                upstream.finish()
            else:
                upstream.leave()
        if self.expiry is not None:
            self.expiry()
            self.expiry = None
        self.exchange.release()
        self._host.over(self)
