"""The envelope: bounds, override, budget and holding, by tables and by a law."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisord_cp.core.scaling.envelope import decide
from supervisord_cp.model.assignment import Override
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.scaling import ScaleBounds, ScaleLimits, ScaleProposal, ScaleView

VIEW = ScaleView(deployment="chat", configured=2, bounds=ScaleBounds(min=1, max=4), ready=2, starting=1)


def proposal(replicas: float | None) -> ScaleProposal:
    return ScaleProposal(policy="p", replicas=replicas)


@pytest.mark.parametrize(
    ("proposals", "limits", "wanted", "code"),
    [
        ([2], {}, 2, ReasonCode.NONE),
        ([2, 3], {}, 3, ReasonCode.NONE),
        ([2.1], {}, 3, ReasonCode.NONE),
        ([3.0000000000000004], {}, 3, ReasonCode.NONE),
        ([0], {}, 1, ReasonCode.BOUND_MIN),
        ([-7], {}, 1, ReasonCode.BOUND_MIN),
        ([9], {}, 4, ReasonCode.BOUND_MAX),
        ([1e300], {}, 4, ReasonCode.BOUND_MAX),
        ([None], {}, 3, ReasonCode.HOLD),
        ([math.nan], {}, 3, ReasonCode.HOLD),
        ([math.inf], {}, 3, ReasonCode.HOLD),
        ([], {}, 3, ReasonCode.HOLD),
        ([None, 2], {}, 2, ReasonCode.NONE),
        ([2], {"override": Override(deployment="chat", replicas=7)}, 7, ReasonCode.OVERRIDE),
        ([2], {"override": Override(deployment="chat", replicas=0)}, 0, ReasonCode.OVERRIDE),
        ([2], {"override": Override(deployment="chat", replicas=3, learned=True)}, 3, ReasonCode.LEARNED),
        ([4], {"gpus_per_replica": 2, "gpus_left": 5}, 2, ReasonCode.GPU_BUDGET),
        ([2], {"gpus_per_replica": 2, "gpus_left": 5}, 2, ReasonCode.NONE),
        ([4], {"gpus_left": -3}, 0, ReasonCode.GPU_BUDGET),
        ([4], {"gpus_per_replica": 2, "gpu_share": 6}, 3, ReasonCode.GPU_SHARE),
        ([4], {"gpus_per_replica": 0, "gpus_left": 0}, 4, ReasonCode.NONE),
        ([4], {"gpu_share": 3, "gpus_left": 2}, 2, ReasonCode.GPU_BUDGET),
        (
            [4],
            {"override": Override(deployment="chat", replicas=9), "gpus_left": 6},
            6,
            ReasonCode.GPU_BUDGET,
        ),
    ],
)
def test_a_number_that_is_given(
    proposals: list[float | None], limits: dict, wanted: int, code: ReasonCode
) -> None:
    decision, _ = decide(VIEW, [proposal(r) for r in proposals], ScaleLimits(**limits))
    assert (decision.wanted, decision.reason.code) == (wanted, code)
    assert "?" not in render(decision.reason)


@given(
    st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)), max_size=4),
    st.integers(0, 5),
    st.integers(0, 50),
)
def test_a_given_number_stays_within_bounds_and_budget(
    replicas: list[float | None], low: int, budget: int
) -> None:
    view = replace(VIEW, bounds=ScaleBounds(min=low, max=low + 3))
    decision, _ = decide(view, [proposal(r) for r in replicas], ScaleLimits(gpus_left=budget))
    assert 0 <= decision.wanted <= min(low + 3, budget)
    if budget >= low:
        assert decision.wanted >= low
