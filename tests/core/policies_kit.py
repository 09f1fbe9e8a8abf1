"""Steps, pipelines and lanes around policies that a test writes."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from supervisord_cp.builtin.routers.best_score import best_score
from supervisord_cp.builtin.routers.load_balanced import load_balanced
from supervisord_cp.core.policies.guard import Figures, Guard
from supervisord_cp.core.routing.ejection import Ejections
from supervisord_cp.core.routing.lane import Lane
from supervisord_cp.core.routing.lane_policies import LanePolicies
from supervisord_cp.core.routing.leases import Account, Lease, Ledger
from supervisord_cp.core.routing.pipeline import Pipeline
from supervisord_cp.core.routing.queue import WaitingLine
from supervisord_cp.core.routing.scheduling import Scheduling
from supervisord_cp.core.routing.step import Step
from supervisord_cp.model.fleet import RoutedDeployment, RoutedInstance
from supervisord_cp.model.request import RoutingRequest
from supervisord_cp.policy.declare import PolicyKind
from supervisord_cp.policy.scheduling import WaitingRequest
from supervisord_cp.policy.testing import request


class Quiet:
    """Listens to guards and keeps what they say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def opened(self, policy: str, why: str, lasts_s: float) -> None:
        self.said.append(f"{policy} opened")

    def closed(self, policy: str) -> None:
        self.said.append(f"{policy} closed")


class Bench:
    """Makes guarded policies; all figures are by name."""

    def __init__(self) -> None:
        self.figures: dict[str, Figures] = {}
        self.listener = Quiet()

    def guard(self, name: str) -> Guard:
        figures = self.figures.setdefault(name, Figures())
        return Guard(name, figures, self.listener, lambda: 0.0)

    def step(self, kind: str, call: Callable[..., Any], name: str = "p", **more: Any) -> Step:
        return Step(kind=PolicyKind(kind), call=call, guard=self.guard(name), **more)

    def pipeline(self, *steps: Step) -> Pipeline:
        return Pipeline(steps, score=load_balanced, pick=best_score)

    def scheduling(self, call: Callable[..., Any], name: str = "s", **more: Any) -> Scheduling:
        return Scheduling(self.guard(name), call, **more)

    def lane(
        self,
        *instances: RoutedInstance,
        scheduler: Callable[..., Any] = lambda waiting, context: waiting.arrived,
        steps: Sequence[Step] = (),
        params: Any = None,
        shadow: Any = None,
        **deployment: Any,
    ) -> "TestLane":
        scheduling = self.scheduling(scheduler, params=params)
        policies = LanePolicies(router=self.pipeline(*steps), scheduler=scheduling, shadow=shadow)
        return TestLane(policies, instances, **deployment)


class Item:
    """A request in a lane."""

    body_bytes = 1

    def __init__(self, name: str = "r", *, arrived: float = 0.0, decode: int = 100, **fields: Any) -> None:
        self.request: RoutingRequest = request(name, **fields)
        self.arrived = arrived
        self.decode = decode

    def __repr__(self) -> str:
        return self.request.id

    @property
    def prompt_tokens(self) -> int:
        return self.request.prompt_tokens

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.decode

    @property
    def key(self) -> str:
        return self.request.key

    @property
    def waiting(self) -> WaitingRequest:
        return WaitingRequest(request=self.request, arrived=self.arrived, decode_tokens=self.decode)


class TestLane:
    """A lane with its ledger."""

    __test__ = False

    def __init__(
        self, policies: LanePolicies, instances: Sequence[RoutedInstance], **deployment: Any
    ) -> None:
        routed = RoutedDeployment(name="chat", names=("chat",), **deployment)  # type: ignore[arg-type]
        line: WaitingLine[Item] = WaitingLine(most=100, most_bytes=10**6)
        self.lane: Lane[Item] = Lane(routed, policies, line, Random(1))
        self.ledger = Ledger()
        self._leases: dict[Account, list[Lease]] = {}
        self.serve(*instances)

    def serve(self, *instances: RoutedInstance, now: float = 0.0) -> None:
        self.ledger.sync((instance, instance.max_concurrency) for instance in instances)
        self.lane.refresh(instances, self.ledger, Ejections(), now)

    def account(self, number: int, life: str = "a") -> Account:
        found = self.ledger.get(f"chat-{number}.{life}")  # type: ignore[arg-type]
        assert found is not None
        return found

    def fill(self, number: int) -> None:
        account = self.account(number)
        while account.has_room(0.0):
            self._open(account, 1, 1)

    def free(self, number: int) -> None:
        """One of the requests there that this kit has sent is done."""
        self._leases[self.account(number)].pop(0).close()

    def drain(self, now: float = 0.0) -> list[tuple[str, str]]:
        """Send out what can go; who goes where."""
        out = []
        while (found := self.lane.next_out(now)) is not None:
            item, account = found
            self.lane.line.serve(item, now)
            self._open(account, item.prompt_tokens, item.decode)
            out.append((item.request.id, str(account.instance.id)))
        return out

    def _open(self, account: Account, prefill: int, decode: int) -> None:
        self._leases.setdefault(account, []).append(account.open(prefill, decode))
