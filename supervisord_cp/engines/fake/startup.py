"""What a start says, and how it fails."""

from collections.abc import Iterable, Iterator

from supervisord_cp.engines.fake.failures import StartFailure, failures, last_words
from supervisord_cp.engines.fake.knobs import Knobs
from supervisord_cp.engines.fake.log import log, log_http, log_lines
from supervisord_cp.engines.fake.options import Options
from supervisord_cp.engines.fake.phases import Line, Phase, phases


class StartFailed(Exception):
    """The engine does not start; everything has been said on the log."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
        """The exit status; negative: the signal to die of."""


class Startup:
    """One start, step by step; each step raises StartFailed when the knobs say so."""

    def __init__(self, options: Options, knobs: Knobs, api_pid: int) -> None:
        self._options = options
        self._knobs = knobs
        self._api_pid = api_pid
        self._engine_pid = 0
        table = failures(options)
        self._failure: StartFailure | None = table.get(knobs.fail_start)
        if self._failure is None and knobs.kv_tokens < options.max_model_len:
            self._failure = table["kv_cache"]

    def announce(self) -> None:
        """Before the port is bound."""
        self._say(
            (
                Line("APIServer", "api_utils.py:347", f"version {self._knobs.version}"),
                Line("APIServer", "api_utils.py:347", f"model   {self._options.model}"),
                Line("APIServer", "api_utils.py:286", f"non-default args: {self._options.non_default}"),
            )
        )
        self._fail_in("bind")

    def configure(self) -> None:
        """Before there is an engine core."""
        length = f"Using max model len {self._options.max_model_len}"
        self._say((Line("APIServer", "model.py:2152", length),))
        self._fail_in("config")

    def phases(self, engine_pid: int) -> Iterator[Phase]:
        """The phases with an engine core. A phase is begun, takes its time, and is ended."""
        self._engine_pid = engine_pid
        return phases(self._options, self._knobs)

    def begin(self, phase: Phase) -> None:
        self._say(phase.before)

    def end(self, phase: Phase) -> None:
        self._fail_in(phase.name)
        self._say(phase.after)

    def serve(self, address: str) -> None:
        """The last lines, once clients are accepted."""
        self._say((Line("APIServer", "entry.py:140", f"Starting vLLM server on {address}"),))
        log_http(f"Started server process [{self._api_pid}]")
        log_http("Waiting for application startup.")
        log_http("Application startup complete.")

    def _fail_in(self, phase: str) -> None:
        failure = self._failure
        if failure is None or failure.phase != phase:
            return
        if failure.in_engine:
            said = (
                "EngineCore failed to start.",
                "Traceback (most recent call last):",
                *failure.cause.splitlines(),
            )
            self._say((Line("EngineCore", "core.py:1478", text) for text in said), "ERROR")
        log_lines(last_words(failure))
        code = self._knobs.fail_code
        raise StartFailed(failure.code if code is None else code)

    def _say(self, lines: Iterable[Line], level: str = "INFO") -> None:
        for line in lines:
            pid = self._api_pid if line.process == "APIServer" else self._engine_pid
            log(line.process, pid, line.place, line.text, level)
