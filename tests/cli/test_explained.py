"""Why a deployment has its number of replicas, as text."""

import json

from supervisord_cp.cli.explained import decision_lines
from tests.cli.conftest import Run
from tests.cli.stub import StubCentral

TOLD = {
    "deployment": {
        "name": "chat",
        "wanted": 8,
        "held": False,
        "cannot_place": [{"reason": "no_free_device", "message": "no free device", "ways": ["with one GPU"]}],
    },
    "override": None,
    "decision": {
        "at": 1_760_000_000.0,
        "wanted": 8,
        "current": 6,
        "held": False,
        "message": "at its max",
    },
    "replicas": {"ready": 6, "starting": 2, "draining": 0},
    "inputs": [
        {
            "name": "queued",
            "kind": "signal",
            "state": "value",
            "value": 12.0,
            "age_s": 0.4,
            "window_s": 0.0,
            "source": "router",
            "detail": "",
        },
        {
            "name": "chat_queue",
            "kind": "query",
            "state": "stale",
            "value": None,
            "age_s": 34.0,
            "window_s": 0.0,
            "source": "prometheus",
            "detail": "no answer within 5 s",
            "expression": "sum(w)",
        },
    ],
    "proposals": [
        {"policy": "hpa", "replicas": 11.0, "at_least": None, "at_most": None, "message": "tokens are 9400"},
        {"policy": "kpa", "replicas": None, "at_least": None, "at_most": None, "message": "no data"},
    ],
    "limits": [{"before": 11, "after": 8, "message": "lowered to the maximum of 8"}],
    "otherwise": [
        {"if": "without the maximum of 8", "then": 11, "because": "tokens are 9400", "in_s": None},
        {"if": "with data for chat_queue", "then": None, "because": "", "in_s": None},
    ],
    "thresholds": [
        {
            "policy": "hpa",
            "signal": "tokens",
            "value": 9400.0,
            "more_above": None,
            "more": None,
            "less_below": 6400.0,
            "less": 7,
        },
        {"policy": "slo", "signal": None, "value": 1.0, "more_above": 1.25, "more": 9, "less_below": None},
    ],
    "events": [{"at": 1_760_000_000.0, "kind": "deployment.scaled", "subject": "chat", "message": "6 -> 8"}],
}

LINES = """\
chat: 8 wanted (6 ready, 2 starting, 0 draining)
  at its max
inputs:
  queued      12     0.4s old  router
  chat_queue  stale  34s old   prometheus  no answer within 5 s; sum(w)
proposals:
  hpa  11               tokens are 9400
  kpa  does not know    no data
limits that changed it, in order:
  11 -> 8  lowered to the maximum of 8
for another number:
  11  without the maximum of 8 (tokens are 9400)
  ?   with data for chat_queue
  7   when tokens stays below 6400 (now 9400), by hpa
  9   when the load stays above 125% of the present one, by slo
replicas without a place:
  no free device  would be placed with one GPU
"""


def test_a_decision_is_told_section_by_section() -> None:
    lines = [line for line in decision_lines(TOLD) if not line.startswith("  decided ")]
    assert "\n".join(lines) + "\n" == LINES


def test_an_input_without_a_value_says_why() -> None:
    signal = {"name": "ttft_s", "age_s": 0.4, "window_s": 60.0, "source": "agent"}
    lines = decision_lines({"inputs": [signal | {"state": "nan", "detail": "no token came in that time"}]})
    told = "  ttft_s  not known yet  0.4s old  agent, over 1m00s  no token came in that time"
    assert list(lines)[-1] == told


def test_replicas_that_crash_are_told_with_what_to_ask_next() -> None:
    why = "chat-7 crashed once: killed; next try in 2 s"
    shown = {"name": "chat", "wanted": 2, "failing": [{"instance": "chat-7", "message": why}]}
    counts = {"ready": 1, "starting": 0, "failed": 1}
    assert list(decision_lines({"deployment": shown, "replicas": counts})) == [
        "chat: 2 wanted (1 ready, 0 starting, 1 in backoff)",
        "replicas that do not come up:",
        f"  {why}: supervisord-cp explain instance chat-7",
    ]


def test_explain_a_deployment(run: Run, central: StubCentral) -> None:
    central.says("explain/deployment/chat", TOLD)
    shown = run("explain", "deployment", "chat").stdout
    assert shown.startswith("chat: 8 wanted (6 ready, 2 starting, 0 draining)\n")
    assert shown.splitlines()[-1].endswith("deployment.scaled chat 6 -> 8")
    assert json.loads(run("explain", "deployment", "chat", "-o", "json").stdout) == TOLD


def test_the_latest_decisions(run: Run, central: StubCentral) -> None:
    decisions = [{"at": 1_760_000_000.0, "wanted": 8, "current": 6, "held": False, "message": "6400 tokens"}]
    central.says("explain/deployment/chat", {"deployment": {"name": "chat"}, "decisions": decisions})
    shown = run("explain", "deployment", "chat", "--last", "5").stdout.splitlines()
    assert shown[0].split() == ["AT", "FROM", "WANTED", "WHY"]
    assert shown[1].split()[2:] == ["6", "8", "6400", "tokens"]
    assert central.requests[0][1] == "/api/v1/explain/deployment/chat?last=5"


def test_the_decision_of_then(run: Run, central: StubCentral) -> None:
    central.says("explain/deployment/chat", TOLD)
    assert run("explain", "deployment", "chat", "--at", "2026-01-31T14:05:00+00:00").exit_code == 0
    assert central.requests[0][1] == "/api/v1/explain/deployment/chat?at=1769868300.0"
    assert run("explain", "deployment", "chat", "--at", "10m").exit_code == 0
    assert run("explain", "deployment", "chat", "--at", "noon").exit_code == 2
    assert run("explain", "deployment", "chat", "--at", "10m", "--last", "2").exit_code == 2
    assert run("explain", "instance", "chat-0", "--last", "2").exit_code == 2


def test_what_an_older_central_leaves_out_is_left_out() -> None:
    assert list(decision_lines({"deployment": {"name": "chat", "wanted": 2}, "decision": {}})) == [
        "chat: 2 wanted"
    ]
