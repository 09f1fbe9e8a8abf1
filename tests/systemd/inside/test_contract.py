"""The systemd back end keeps the contract that all back ends keep."""

from types import FunctionType, ModuleType
from typing import Final

from tests.keeper import test_adoption, test_contract
from tests.keeper.test_adoption import innocent
from tests.keeper.test_contract import pytestmark

OTHERWISE: Final = {
    # Two users: `test_engine_units.py` says who may read what.
    "test_secrets_are_for_the_owner_only",
    # They start agents with the direct back end; the machine has a real agent.
    "test_the_next_agent_takes_over_from_one_that_was_killed",
    "test_an_exit_while_no_agent_lived_is_told_to_the_next_one",
    "test_an_agent_that_dies_while_it_spawns_leaves_nothing_unknown",
    # The tree does not outlive its keeper: systemd ends both.
    "test_a_killed_keeper_gets_a_successor_and_its_engine_notices_nothing",
    "test_a_killed_keeper_is_replaced_and_ends_the_whole_tree_when_asked",
    "test_a_tree_without_a_keeper_is_taken_over",
    "test_a_record_of_an_older_keeper_has_no_successor",
    "test_a_successor_goes_on_with_the_stop_of_a_killed_keeper",
    "test_an_end_is_seen_although_the_successor_of_a_keeper_is_stuck",
    "test_daemons_with_another_environment_are_ended_by_their_session",
}
"""Tests of the contract that do not hold here as they are written."""


def in_module(module: ModuleType) -> dict[str, FunctionType]:
    return {name: thing for name, thing in vars(module).items() if name.startswith("test_")}


CONTRACT: Final = in_module(test_contract) | in_module(test_adoption)
assert set(CONTRACT) >= OTHERWISE
globals().update({name: test for name, test in CONTRACT.items() if name not in OTHERWISE})

__all__ = ["innocent", "pytestmark"]
