"""Merge patches: what a browser has after one is what central had."""

from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.central.page.patch import applied, merge_patch

values = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)
trees = st.dictionaries(st.text(max_size=2), values, max_size=4)


@given(before=trees, after=trees)
def test_a_patch_makes_of_the_old_the_new(before: dict, after: dict) -> None:
    assert applied(before, merge_patch(before, after)) == after


@given(tree=trees)
def test_nothing_new_is_an_empty_patch(tree: dict) -> None:
    assert merge_patch(tree, tree) == {}


def test_a_patch_holds_only_what_changed() -> None:
    before = {"a": {"x": 1, "y": 2}, "b": {"z": 3}, "c": 4}
    after = {"a": {"x": 1, "y": 5}, "b": {"z": 3}}
    assert merge_patch(before, after) == {"a": {"y": 5}, "c": None}
