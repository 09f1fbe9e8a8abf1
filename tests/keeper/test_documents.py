"""Both sides of the keeper's documents are written down twice, because the keeper imports nothing of ours."""

import msgspec
import pytest

from supervisord_cp.adapters import keeper_directory, proctree
from supervisord_cp.adapters.keeper_directory import AnswerDocument, ExitDocument, StatusDocument
from supervisord_cp.adapters.kept_engine import REPORT_WAIT_S
from supervisord_cp.keeper import protocol
from supervisord_cp.keeper.pipe import DRAIN_S
from supervisord_cp.ports.process import ProcessRecord, SpawnRequest


@pytest.mark.parametrize(
    ("written", "read"),
    [(protocol.LaunchDocument, SpawnRequest)],
)
def test_these_have_the_same_fields(written: type, read: type[msgspec.Struct]) -> None:
    assert set(written.__annotations__) == set(read.__struct_fields__)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (protocol.RecordDocument, ProcessRecord),
        (protocol.ExitDocument, ExitDocument),
        (protocol.StatusDocument, StatusDocument),
        (protocol.AnswerDocument, AnswerDocument),
    ],
)
def test_of_these_only_fields_that_are_written_are_read(written: type, read: type[msgspec.Struct]) -> None:
    assert set(read.__struct_fields__) <= set(written.__annotations__)


@pytest.mark.parametrize("name", ["LAUNCH", "RECORD", "FAILED", "EXIT", "LOCK", "SOCKET"])
def test_files_have_one_name(name: str) -> None:
    assert getattr(keeper_directory, name) == getattr(protocol, name)


def test_the_nonce_has_one_variable() -> None:
    assert proctree.NONCE_VARIABLE == protocol.NONCE_VARIABLE


def test_an_end_is_waited_for_longer_than_its_keeper_waits_for_the_disk() -> None:
    """Else a slow disk would cost the exit status."""
    assert REPORT_WAIT_S >= DRAIN_S + 1.0


def test_a_status_of_a_newer_keeper_is_understood() -> None:
    status = msgspec.json.decode(b'{"protocol":1,"gone":true,"survivors":[7],"new":{}}', type=StatusDocument)
    assert (status.gone, status.survivors, status.exit) == (True, (7,), None)
