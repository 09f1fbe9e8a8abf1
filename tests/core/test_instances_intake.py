"""What an agent believes of a desired state."""

from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.instances.intake import Book, take_over, with_found, without
from supervisord_cp.model.base import InstanceId
from supervisord_cp.model.launch import DesiredInstance, DesiredNode, Generation
from tests.core.instances_kit import desired

A, B, C = desired("chat-0"), desired("chat-1"), desired("chat-2")


def node(
    *instances: DesiredInstance,
    counter: int = 1,
    epoch: str = "e",
    removals: tuple[str, ...] = (),
    acknowledged: int = 1,
    name: str = "n",
) -> DesiredNode:
    return DesiredNode(
        node=name,
        generation=Generation(epoch=epoch, counter=counter),
        acknowledged=acknowledged,
        instances=instances,
        removals=tuple(InstanceId(removal) for removal in removals),
    )


def book(*instances: DesiredInstance, counter: int = 1) -> Book:
    return take_over(Book(), node(*instances, counter=counter), node="n", inventory=1).book


def ids(instances: tuple[DesiredInstance, ...]) -> list[str]:
    return [instance.id for instance in instances]


def test_the_first_desired_state_is_taken_over() -> None:
    taken = book(A, B)
    assert taken == Book(generation=Generation(epoch="e", counter=1), instances=(A, B))


def test_what_is_not_mentioned_is_kept_as_unlisted() -> None:
    after = take_over(book(A, B), node(A, counter=2), node="n", inventory=1).book
    assert ids(after.instances) == ["chat-0", "chat-1"]
    assert after.unlisted == ("chat-1",)
    back = take_over(after, node(A, B, counter=3), node="n", inventory=1).book
    assert back.unlisted == ()


def test_a_central_that_knows_nothing_removes_nothing() -> None:
    after = take_over(book(A, B), node(epoch="new"), node="n", inventory=1).book
    assert ids(after.instances) == ["chat-0", "chat-1"]
    assert after.unlisted == ("chat-0", "chat-1")
    assert after.removing == ()


def test_an_older_counter_is_refused_and_the_same_one_is_not() -> None:
    known = book(A, counter=5)
    refused = take_over(known, node(B, counter=4), node="n", inventory=1)
    assert refused.book is known
    assert "older" in refused.refused
    assert take_over(known, node(A, B, counter=5), node="n", inventory=1).refused == ""
    assert take_over(known, node(B, counter=1, epoch="other"), node="n", inventory=1).refused == ""


def test_another_nodes_state_is_refused() -> None:
    refused = take_over(book(A), node(B, counter=2, name="m"), node="n", inventory=1)
    assert ids(refused.book.instances) == ["chat-0"]
    assert "'m'" in refused.refused


def test_a_removal_needs_somebody_who_has_seen_the_inventory() -> None:
    known = book(A, B)
    for inventory, acknowledged in ((None, 99), (3, 2)):
        intake = take_over(
            known,
            node(A, counter=2, removals=("chat-1",), acknowledged=acknowledged),
            node="n",
            inventory=inventory,
        )
        assert intake.kept == ("chat-1",)
        assert intake.book.removing == ()
        assert intake.book.unlisted == ("chat-1",)
    intake = take_over(known, node(A, counter=2, removals=("chat-1",), acknowledged=3), node="n", inventory=3)
    assert intake.book.removing == ("chat-1",)
    assert ids(intake.book.instances) == ["chat-0", "chat-1"]


def test_a_removal_goes_on_though_later_states_do_not_repeat_it() -> None:
    removing = take_over(book(A, B), node(A, counter=2, removals=("chat-1",)), node="n", inventory=1).book
    later = take_over(removing, node(A, counter=3), node="n", inventory=None).book
    assert later.removing == ("chat-1",)
    assert without(later, B.id) == Book(generation=later.generation, instances=(A,))


def test_mentioned_again_is_wanted_again() -> None:
    removing = take_over(book(A, B), node(A, counter=2, removals=("chat-1",)), node="n", inventory=1).book
    back = take_over(removing, node(A, B, counter=3), node="n", inventory=1).book
    assert (back.removing, back.unlisted) == ((), ())


def test_one_that_is_both_mentioned_and_removed_is_kept() -> None:
    after = take_over(book(A), node(A, counter=2, removals=("chat-0",)), node="n", inventory=1)
    assert after.book.removing == ()


def test_removals_of_what_does_not_exist_are_done_already() -> None:
    intake = take_over(book(A), node(A, counter=2, removals=("chat-9",)), node="n", inventory=None)
    assert intake.unknown == ("chat-9",)
    assert intake.kept == ()
    assert ids(intake.book.instances) == ["chat-0"]


def test_ids_that_would_name_other_files_are_ignored() -> None:
    bad = [desired(name) for name in ("../x-0", "a/b-0", "", ".", "x" * 101, "a\n-0")]
    intake = take_over(Book(), node(A, *bad), node="n", inventory=1)
    assert ids(intake.book.instances) == ["chat-0"]
    assert intake.invalid == tuple(one.id for one in bad)


def test_engines_that_were_found_are_kept_as_unlisted() -> None:
    found = with_found(book(A), B)
    assert (ids(found.instances), found.unlisted) == (["chat-0", "chat-1"], ("chat-1",))
    assert with_found(found, A) is found


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([A, B, C]), unique_by=lambda one: one.id),
            st.sets(st.sampled_from(["chat-0", "chat-1", "chat-2"])),
            st.integers(0, 3),
            st.sampled_from(["e", "f"]),
            st.sampled_from([None, 1, 2]),
        ),
        max_size=8,
    )
)
def test_nothing_leaves_the_book_but_by_an_acknowledged_removal(
    history: list[tuple[list[DesiredInstance], set[str], int, str, int | None]],
) -> None:
    known = Book()
    for mentioned, removals, counter, epoch, inventory in history:
        message = node(*mentioned, counter=counter, epoch=epoch, removals=tuple(removals), acknowledged=1)
        after = take_over(known, message, node="n", inventory=inventory).book
        before_ids, after_ids = set(ids(known.instances)), set(ids(after.instances))
        assert before_ids <= after_ids
        fresh = set(after.removing) - set(known.removing)
        assert fresh <= removals
        assert not fresh or inventory == 1
        assert not set(after.removing) & set(after.unlisted)
        assert set(after.unlisted) | set(after.removing) <= after_ids
        known = after
