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
    "test_a_killed_keeper_is_noticed_and_its_tree_ended",
    "test_a_tree_without_a_keeper_is_found_and_ended_when_asked",
    "test_daemons_with_another_environment_are_ended_by_their_session",
}
"""Tests of the contract that do not hold here as they are written."""


def in_module(module: ModuleType) -> dict[str, FunctionType]:
    return {name: thing for name, thing in vars(module).items() if name.startswith("test_")}


CONTRACT: Final = in_module(test_contract) | in_module(test_adoption)
assert set(CONTRACT) >= OTHERWISE
globals().update({name: test for name, test in CONTRACT.items() if name not in OTHERWISE})

__all__ = ["innocent", "pytestmark"]
