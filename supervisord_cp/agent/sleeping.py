"""Putting one engine to sleep and waking it, with a question asked before and after."""

from collections.abc import Callable
from typing import Final

import msgspec

from supervisord_cp.agent.engine_http import CallFailed, EngineHttp
from supervisord_cp.agent.launch import RunNotes
from supervisord_cp.core.instances import events as ev
from supervisord_cp.engines.base import EngineCall, SleepMode
from supervisord_cp.engines.vllm_sleep import answer_of
from supervisord_cp.model.reason import Reason, ReasonCode

CALL_S: Final = 300.0
"""Longer than the weights of any model take from a disk that is worth it."""

Deliver = Callable[[ev.LifeEvent], None]


class Sleeper:
    """The commands to one incarnation. What comes of them is delivered as events."""

    def __init__(self, notes: RunNotes, http: EngineHttp, deliver: Deliver) -> None:
        self._notes = notes
        self._http = http
        self._deliver = deliver

    async def sleep(self) -> None:
        """Put it to sleep. Its requests are done."""
        try:
            mode = self._mode()
            self._deliver(ev.Answered(text=await self._canary(mode)))
            await self._all(mode.sleep)
            await self._expect(mode, asleep=True)
        except (CallFailed, ValueError) as error:
            self._deliver(_failed(str(error)))
        else:
            self._deliver(ev.FellAsleep())

    async def wake(self, answer: str) -> None:
        """Wake it and see that it is what it was: `answer` is what it has to say."""
        try:
            mode = self._mode()
            await self._all(mode.wake)
            await self._expect(mode, asleep=False)
            now = await self._canary(mode)
            if answer and now != answer:
                raise ValueError(f"it answered {answer!r} before it slept and answers {now!r} now")
        except (CallFailed, ValueError) as error:
            self._deliver(_failed(str(error)))
        else:
            self._deliver(ev.Woken())

    def _mode(self) -> SleepMode:
        if self._notes.sleep_mode is None:
            raise CallFailed("it was started without sleep mode")
        return self._notes.sleep_mode

    async def _all(self, calls: tuple[EngineCall, ...]) -> None:
        for call in calls:
            await self._call(call)

    async def _canary(self, mode: SleepMode) -> str:
        return answer_of(await self._call(mode.canary))

    async def _expect(self, mode: SleepMode, *, asleep: bool) -> None:
        page = await self._http.page(self._notes.url, mode.state_path, self._notes.api_key)
        try:
            said = msgspec.json.decode(page or "{}", type=dict[str, object]).get("is_sleeping")
        except msgspec.MsgspecError:
            said = None
        if said is not asleep:
            raise CallFailed(f"{mode.state_path} says {said!r}")

    async def _call(self, call: EngineCall) -> bytes:
        return await self._http.call(self._notes.url, call, self._notes.api_key, CALL_S)


def _failed(error: str) -> ev.SleepFailed:
    return ev.SleepFailed(reason=Reason(code=ReasonCode.SLEEP_FAILED, params={"error": error}))
