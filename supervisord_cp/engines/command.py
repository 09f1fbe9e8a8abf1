"""Any server that speaks the API: an argv template and a path that says when it is ready."""

import re
from typing import Final

from supervisord_cp.engines.arguments import plain
from supervisord_cp.engines.base import Capabilities, EngineCall, LaunchContext, LaunchRefused, PreparedLaunch
from supervisord_cp.engines.environment import check_variables, decided_environment, visible_devices
from supervisord_cp.engines.exits import diagnose
from supervisord_cp.engines.vllm_probe import find_program
from supervisord_cp.model.instance import EngineLoad, ExitCause, Phase
from supervisord_cp.model.launch import LaunchSpec

KEY_VARIABLE: Final = "SUPERVISORD_CP_API_KEY"
"""Where the program finds the key that requests will carry, when it does not listen on loopback."""
_PLACEHOLDER: Final = re.compile(r"\{(port|host|model|devices)\}")


class CommandEngine:
    """The engine `command`."""

    @property
    def kind(self) -> str:
        return "command"

    @property
    def metrics_path(self) -> str:
        return ""

    @property
    def rest_paths(self) -> tuple[str, ...]:
        return ()

    def probe(self, executable: str) -> Capabilities:
        """Find the program; nothing is known of what it can do."""
        return Capabilities(executable=find_program(executable))

    def prepare(self, spec: LaunchSpec, context: LaunchContext, found: Capabilities) -> PreparedLaunch:
        """The deployment's argv with `{port}`, `{host}`, `{model}` and `{devices}` filled in; other braces
        stay as they are."""
        if not spec.command:
            raise LaunchRefused('engine = "command" needs `command`, a list of the program and its arguments')
        if spec.args:
            raise LaunchRefused('engine = "command" has no `args`; write them into `command`')
        check_variables(spec.env)
        filled = {
            "port": str(context.port),
            "host": context.host,
            "model": spec.model,
            "devices": visible_devices(context),
        }
        argv = [_PLACEHOLDER.sub(lambda match: filled[match[1]], part) for part in spec.command[1:]]
        key = {KEY_VARIABLE: context.api_key} if context.api_key else {}
        return PreparedLaunch(
            argv=(found.executable, *(plain("command", part) for part in argv)),
            env={**spec.env, **decided_environment(context), **key},
            secrets=frozenset(key),
        )

    def ready_path(self, spec: LaunchSpec) -> str:
        """As the deployment says."""
        return spec.ready_path

    def pulse(self, spec: LaunchSpec) -> EngineCall | None:
        """Nothing is known of what it does."""
        return None

    def load(self, page: str) -> EngineLoad:
        """Nothing is known of its metrics."""
        return EngineLoad()

    def phase(self, line: str) -> Phase | None:
        """Nothing is known of its log."""
        return None

    def classify(self, code: int | None, signal: int | None, log_tail: str, was_ready: bool) -> ExitCause:
        """See `exits`."""
        return diagnose(code, signal, log_tail, was_ready).cause
