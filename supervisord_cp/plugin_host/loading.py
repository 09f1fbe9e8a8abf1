"""From a policy file's text to its declared policy: run once, looked at from all sides."""

import dataclasses
import inspect
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from types import CodeType, ModuleType
from typing import Any, Final

import msgspec

from supervisord_cp.core.policies.guard import Overrun
from supervisord_cp.errors import Problem
from supervisord_cp.plugin_host.source import Source
from supervisord_cp.policy.declare import API_VERSION, PolicyKind, PolicySpec, declared

_ARGUMENTS: Final = {
    PolicyKind.SCHEDULER: ("waiting", "context"),
    PolicyKind.FILTER: ("request", "candidates", "context"),
    PolicyKind.SCORER: ("request", "candidates", "context"),
    PolicyKind.PICKER: ("request", "candidates", "scores", "context"),
    PolicyKind.SCALER: ("view",),
    PolicyKind.PLACER: ("view",),
}
_HOOKS: Final = {
    "on_dispatch": ("request", "candidate", "context"),
    "on_first_byte": ("request", "candidate", "context"),
    "on_complete": ("request", "candidate", "outcome", "context"),
    "on_instance_reset": ("incarnation",),
    "on_arrival": ("waiting", "context"),
    "instances": ("waiting", "candidates", "context"),
    "hopeless": ("waiting", "context"),
    "describe": (),
}
ENTRY_POINTS: Final = "supervisord_cp.policies"
_LONGEST: Final = 300


class Unusable(Exception):
    """A policy that cannot be used, and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def load_source(source: Source) -> PolicySpec:
    """Run a policy file and take what it declares.

    Raises:
        Unusable: it raises, or what it declares cannot be used; with the line that is at fault.
    """
    if source.declaration is None:
        raise Unusable(source.problem or Problem(message="declares no policy", path=source.path))
    module = _run(source)
    specs = [spec for value in vars(module).values() if (spec := _declared_here(value, module)) is not None]
    line = source.declaration.line
    if len(specs) != 1 or (specs[0].name, specs[0].kind) != (
        source.declaration.name,
        source.declaration.kind,
    ):
        message = "what it declares when it is run is not what stands there"
        raise Unusable(Problem(message=message, path=source.path, line=line))
    if why := unfit(specs[0]):
        raise Unusable(Problem(message=why, path=source.path, line=line))
    return specs[0]


def entry_points() -> dict[str, metadata.EntryPoint]:
    """The policies that installed packages offer, by name; nothing of them is imported."""
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def load_entry_point(name: str) -> PolicySpec:
    """Import a policy of an installed package.

    Raises:
        Unusable: there is none, it raises, or what it declares cannot be used.
    """
    point = entry_points().get(name)
    where = f"entry point {name}" if point is None else f"{name} = {point.value}"
    if point is None:
        raise Unusable(Problem(message="no installed package offers it", path=where))
    try:
        spec = declared(point.load())
    except Exception as error:
        message = f"raises {type(error).__name__} when it is imported: {error}"[:_LONGEST]
        raise Unusable(Problem(message=message, path=where)) from error
    if spec is None or spec.name != name:
        raise Unusable(Problem(message="does not declare a policy of that name", path=where))
    if why := unfit(spec):
        raise Unusable(Problem(message=why, path=where))
    return spec


def unfit(spec: PolicySpec) -> str:
    """Why a declaration cannot be used, "" when it can."""
    if spec.api > API_VERSION:
        return f"was written for version {spec.api} of the policy API; this is version {API_VERSION}"
    for what, type_ in (("params", spec.params), ("memory", spec.memory)):
        if type_ is not None and (why := _unfit_type(type_)):
            return f"{what} = {getattr(type_, '__name__', type_)} {why}"
    if spec.memory is not None and spec.kind is not PolicyKind.SCALER:
        return f"memory is kept for scalers alone, not for a {spec.kind}"
    if spec.refresh_s < 0:
        return "refresh_s is below 0"
    return _unfit_calls(spec)


def place_of(error: BaseException, path: str) -> int:
    """The line of the file that an error came from, the innermost one; 0: none of it."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == path), 0)


def _run(source: Source) -> ModuleType:
    """Run its code in a module of its own, which is thrown away when that fails."""
    code: CodeType = compile(source.text, source.path, "exec", dont_inherit=True)
    module = ModuleType(f"supervisord_cp_policy_{source.digest[:16]}", source.path)
    module.__file__ = source.path
    sys.modules[module.__name__] = module  # where dataclasses and msgspec look annotations up
    try:
        exec(code, module.__dict__)  # noqa: S102  # a policy file is trusted code
    except BaseException as error:
        del sys.modules[module.__name__]
        if isinstance(error, KeyboardInterrupt):
            raise
        line = place_of(error, source.path)
        raise Unusable(Problem(message=_when_run(error), path=source.path, line=line)) from error
    return module


def _when_run(error: BaseException) -> str:
    if isinstance(error, Overrun):
        return "does not come back when it is run"
    return f"raises {type(error).__name__} when it is run: {error}"[:_LONGEST]


def _declared_here(value: object, module: ModuleType) -> PolicySpec | None:
    """Its declaration, unless it was imported from somewhere else."""
    spec = declared(value)
    return spec if spec is not None and getattr(value, "__module__", "") == module.__name__ else None


def _unfit_type(type_: Any) -> str:
    if not isinstance(type_, type):
        return "is no class"
    if issubclass(type_, msgspec.Struct):
        frozen = type_.__struct_config__.frozen
    elif dataclasses.is_dataclass(type_):
        frozen = bool(getattr(type_, "__dataclass_params__").frozen)  # noqa: B009  # not in its type
    else:
        return "must be a frozen dataclass or msgspec struct"
    if not frozen:
        return "must be frozen"
    try:
        msgspec.inspect.type_info(type_)
    except (TypeError, NameError) as error:
        return f"has a field that a configuration cannot hold: {error}"
    return ""


def _unfit_calls(spec: PolicySpec) -> str:
    """Whether what is called can be called as it will be."""
    target = spec.target
    if not isinstance(target, type):
        return _unfit_signature(target, _ARGUMENTS[spec.kind], _given(spec))
    if spec.kind in (PolicyKind.SCALER, PolicyKind.PLACER):
        return f"a {spec.kind} is a function; it is handed its memory, where it declares one"
    if "__call__" not in dir(target):
        return f"class {target.__name__} has no method __call__"
    made_with = () if spec.params is None else ("params",)
    if why := _unfit_signature(target, made_with, (), what=f"{target.__name__}()"):
        return why
    methods = {"__call__": _ARGUMENTS[spec.kind], **{name: _HOOKS[name] for name in _HOOKS}}
    for name, arguments in methods.items():
        method = getattr(target, name, None)
        if method is not None and (
            why := _unfit_signature(method, ("self", *arguments), (), what=f"{target.__name__}.{name}")
        ):
            return why
    return ""


def _given(spec: PolicySpec) -> tuple[str, ...]:
    """What a scaler or placer is handed by keyword."""
    if spec.kind not in (PolicyKind.SCALER, PolicyKind.PLACER):
        return ()
    given = (("params", spec.params), ("memory", spec.memory))
    return tuple(name for name, type_ in given if type_ is not None)


def _unfit_signature(
    call: Callable[..., Any], arguments: tuple[str, ...], keywords: tuple[str, ...], what: str = ""
) -> str:
    what = what or getattr(call, "__name__", "it")
    if inspect.iscoroutinefunction(call) or inspect.isgeneratorfunction(call):
        return f"{what} must be an ordinary function"
    try:
        inspect.signature(call).bind(*arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        shown = ", ".join((*(name for name in arguments if name != "self"), *(f"{k}=…" for k in keywords)))
        return f"{what} cannot be called with ({shown}): {error}"
    except ValueError:
        return ""
    return ""
