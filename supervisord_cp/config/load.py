"""Reading a configuration file: every error at once, each with its place."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import tomli

from supervisord_cp.config.checks import check
from supervisord_cp.config.containers import read_at
from supervisord_cp.config.derive import homes, table_of
from supervisord_cp.config.findings import Finding, Level, problems
from supervisord_cp.config.schema import Config
from supervisord_cp.config.sites import Record, Section, Site
from supervisord_cp.errors import ConfigErrors, Problem
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.launch import EngineKind

PATH_VARIABLE: Final = "SUPERVISORD_CP_CONFIG"
SYSTEM_PATH: Final = Path("/etc/supervisord-cp/config.toml")
LOCAL_PATH: Final = Path("config.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A document that was read. It has a configuration even when it is wrong, so that whoever knows more
    than this package (which policies there are, say) can add what else is wrong before anyone is told."""

    text: str
    path: str
    config: Config
    """Defaults stand where the document is wrong."""
    record: Record

    @property
    def policies(self) -> Iterator[Section[PolicyUse]]:
        """Every use of a policy, by its place: the last name in `path` is the key."""
        return self.record.of(PolicyUse)

    def problems(self, level: Level, more: Iterable[Finding] = ()) -> tuple[Problem, ...]:
        """What was found, in the order of the document."""
        found = [finding for finding in (*self.record.findings, *more) if finding.level is level]
        return problems(found, self.text, self.path) if found else ()

    def accepted(self, more: Iterable[Finding] = ()) -> Config:
        """The configuration.

        Raises:
            ConfigErrors: something is wrong with it.
        """
        if errors := self.problems(Level.ERROR, more):
            raise ConfigErrors(errors)
        return self.config


def load(path: Path) -> Config:
    """The configuration in a file. No file that it names is opened.

    Raises:
        ConfigErrors: the file cannot be read, or everything that is wrong with it.
    """
    return read_file(path).accepted()


def parse(text: str, path: Path | None = None) -> Config:
    """The configuration in a text; relative paths resolve against the folder of `path`.

    Raises:
        ConfigErrors: everything that is wrong with it.
    """
    return read(text, path).accepted()


def read_file(path: Path) -> Reading:
    """Read a file; semantic errors are in the reading.

    Raises:
        ConfigErrors: it cannot be read, or is no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file", "config.example.toml is a start") from None
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"not UTF-8 text: byte {error.start} is wrong") from error
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    return read(text, path)


def read(text: str, path: Path | None = None) -> Reading:
    """Read a text; semantic errors are in the reading.

    Raises:
        ConfigErrors: it is no TOML.
    """
    name = str(path) if path is not None else "configuration"
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigErrors((_syntax_problem(error, name),)) from error
    except RecursionError as error:
        raise ConfigErrors((Problem(message="brackets are nested too deeply", path=name),)) from error
    return read_document(raw, text, path)


def read_document(raw: Mapping[str, object], text: str = "", path: Path | None = None) -> Reading:
    """As `read`, for a document that is parsed already; without its text, problems have no lines."""
    folder = path.absolute().parent if path is not None else Path.cwd()
    record = Record(findings=[], sections=[], homes=homes())
    config = read_at(table_of(Config), raw, Site((), folder, record))
    assert isinstance(config, Config)
    record.findings.extend(check(record))
    config = msgspec.structs.replace(_settled(config), path=path, tables=tuple(raw))
    name = str(path) if path is not None else "configuration"
    return Reading(text=text, path=name, config=config, record=record)


def find_file(named: Path | None, environment: Mapping[str, str]) -> Path:
    """The file to read: as named, else by the environment, else ./config.toml, else the system's."""
    if named is not None:
        return named
    if by_environment := environment.get(PATH_VARIABLE):
        return Path(by_environment)
    return LOCAL_PATH if LOCAL_PATH.is_file() else SYSTEM_PATH


def _settled(config: Config) -> Config:
    """No replicas where no engine is started."""
    deployments = tuple(
        msgspec.structs.replace(deployment, replicas=0)
        if deployment.engine == EngineKind.NONE
        else deployment
        for deployment in config.deployments
    )
    return msgspec.structs.replace(config, deployments=deployments)


def _syntax_problem(error: tomli.TOMLDecodeError, path: str) -> Problem:
    hint = "text needs quotes" if error.msg == "Invalid value" else ""
    return Problem(
        message=f"not TOML: {error.msg[:1].lower()}{error.msg[1:]}",
        path=path,
        line=error.lineno,
        column=error.colno,
        hint=hint,
    )


def _unreadable(path: Path, why: str, hint: str = "") -> ConfigErrors:
    return ConfigErrors((Problem(message=why, path=str(path), hint=hint),))
