"""What a request on its way needs of the dispatcher."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from supervisord_cp.core.routing.retry import Miss
from supervisord_cp.router.outgoing import Credentials
from supervisord_cp.router.pools import Pools

if TYPE_CHECKING:
    from supervisord_cp.router.flow import Flow


class Host:
    """Told of what happens to a flow; decides what becomes of it."""

    def __init__(self, pools: Pools, credentials: Credentials, clock: Callable[[], float]) -> None:
        """`clock` is monotonic seconds."""
        self.pools: Final = pools
        self.credentials: Final = credentials
        self.clock: Final = clock

    def missed(self, flow: "Flow", miss: Miss, why: str) -> None:
        """An instance did not answer: the flow goes somewhere else, waits, or is rejected."""
        raise NotImplementedError

    def exhausted(self, flow: "Flow", why: str) -> None:
        """There is nothing left on this host to make a connection with."""
        raise NotImplementedError

    def may_be_refused(self, flow: "Flow") -> bool:
        """Whether a 503 of the engine's is taken for a refusal, and not passed on as the answer."""
        raise NotImplementedError

    def doubted(self, flow: "Flow") -> None:
        """The answer is an error such as a dying engine gives; `believe` or `disbelieve` will be called."""
        raise NotImplementedError

    def answered(self, flow: "Flow", status: int, data: bytes) -> None:
        """The first bytes of an answer are there; `data` is what has come of its body."""
        raise NotImplementedError

    def invalid(self, flow: "Flow", why: str) -> None:
        """What came back is no HTTP, and nothing of it has been passed on."""
        raise NotImplementedError

    def over(self, flow: "Flow") -> None:
        """The request is done with, one way or another; its lease is closed."""
        raise NotImplementedError
