"""What is read from requests and answers: bodies, paths, usage, snapshots."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.routing.asked import Asked
from supervisord_cp.core.routing.classify import read_body, read_query
from supervisord_cp.core.routing.continuity import missing_parts, with_carried
from supervisord_cp.core.routing.estimate import WorkEstimate
from supervisord_cp.core.routing.paths import allowed, forwarded, normal_path, tricky
from supervisord_cp.core.routing.rejection import Rejected, Rejection, RejectReason, body_of, status_of
from supervisord_cp.core.routing.table import index
from supervisord_cp.core.routing.tail import Tail
from supervisord_cp.core.routing.usage import Usage, read_usage
from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId, NodeName
from supervisord_cp.model.fleet import FleetPart, FleetSnapshot, RoutedDeployment, RoutedInstance

JSON = b"application/json"


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"model": "m"}, Asked(model="m")),
        ({"model": "m", "stream": True, "max_tokens": 5}, Asked(model="m", stream=True, max_tokens=5)),
        ({"max_tokens": 5, "max_completion_tokens": 7, "n": 3}, Asked(max_tokens=7, choices=3)),
        ({"max_output_tokens": 9, "previous_response_id": "r"}, Asked(max_tokens=9, previous="r")),
        ({"max_tokens": 5, "max_completion_tokens": None, "n": None}, Asked(max_tokens=5)),
        ({"max_tokens": 5, "user": 7, "n": 2}, Asked(max_tokens=5, choices=2)),
        ({"model": 5, "stream": "yes", "max_tokens": "x", "n": 0}, Asked()),
        ({"model": None, "max_tokens": -1, "n": 10**9}, Asked()),
        ({"messages": [{"model": "inner"}]}, Asked()),
        ({}, Asked()),
    ],
)
def test_the_fields_of_a_json_body(body: object, asked: Asked) -> None:
    for kind in (JSON, b"Application/JSON; charset=utf-8", b"application/vnd.x+json"):
        found = read_body(kind, json.dumps(body).encode())
        assert (found.model, found.stream, found.user) == (asked.model, asked.stream, asked.user)
        assert (found.limit, found.choices, found.previous) == (asked.limit, asked.choices, asked.previous)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"1", b'{"a":1,}', b"{'a':1}", b"\x00", b"{} x", b"[" * 100_000]
)
def test_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        read_body(JSON, body)
    assert caught.value.rejection.reason is RejectReason.INVALID_JSON


def test_other_types_say_nothing() -> None:
    assert read_body(b"text/plain", b'{"model": "m"}') == Asked()
    assert read_body(b"", b"not json") == Asked()
    assert read_body(b"", b'{"model": "m"}') == Asked(model="m")
    assert read_body(JSON, b"") == Asked()


@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5))
)
def test_any_json_object_is_read_as_python_reads_it(body: dict[str, object]) -> None:
    asked = read_body(JSON, json.dumps(body).encode())
    model = body.get("model")
    assert asked.model == (model if isinstance(model, str) else "")


def part_of_form(disposition: bytes, value: bytes = b"m") -> bytes:
    return b"--X\r\n" + disposition + b"\r\n\r\n" + value + b"\r\n--X--"


NAMED = b'Content-Disposition: form-data; name="model"'
FORMS = {
    "plain": (part_of_form(NAMED), "m"),
    "unquoted": (part_of_form(b"content-disposition:form-data; name=model"), "m"),
    "after another": (b"pre\r\n" + part_of_form(b"x: y", b"1")[:-5] + part_of_form(NAMED, b" m "), "m"),
    "behind another field": (part_of_form(b"x: y\r\n" + NAMED), "m"),
    "longer name": (part_of_form(b'Content-Disposition: form-data; name="models"'), ""),
    "a file of that name": (part_of_form(b'Content-Disposition: form-data; name="a"; filename="model"'), ""),
    "without end": (part_of_form(NAMED)[:-7], ""),
    "far too long": (part_of_form(NAMED, b"m" * 600), ""),
    "delimiters only": (b"\r\n--X" * 1000, ""),
}


@pytest.mark.parametrize("what", FORMS)
def test_the_model_of_a_form(what: str) -> None:
    form, model = FORMS[what]
    assert read_body(b"multipart/form-data; boundary=X", form).model == model
    assert read_body(b'Multipart/Form-Data; charset=x; Boundary="X"', form).model == model
    assert read_body(b"multipart/form-data", form).model == ""


@given(st.binary(max_size=300))
def test_no_form_breaks_it(body: bytes) -> None:
    read_body(b"multipart/form-data; boundary=X", b"--X" + body + b"--X")


def test_the_model_of_a_query() -> None:
    assert read_query("a=b&model=my%20model&model=second") == "my model"
    assert read_query("a=model") == ""
    assert read_query("model=&x=1") == ""
    assert read_query("&".join(f"model{n}=1" for n in range(1000))) == ""


PASSED = """
    /v1/chat/completions /v1/chat/completions/ /v1/chat/completions/batch /v1/new /v1/responses/resp_1/cancel
    /tokenize /detokenize /pooling /score /rerank /v2/rerank /v2/embed /cohere/v2/chat /invocations /classify
    /generative_scoring /inference/v1/generate /version /v1/realtime /v1/chat%2Fcompletions /v1/a/b/pause_x
""".split()
CLOSED = """
    /sleep /wake_up /is_sleeping /pause /resume /collective_rpc /reset_prefix_cache /reset_mm_cache
    /start_profile /stop_profile /v1/load_lora_adapter /v1/unload_lora_adapter /abort_requests /metrics /load
    /inference/v1/abort_requests /scale_elastic_ep /fault_tolerance/apply /kv_event_sources /update_weights
    /init_weight_transfer_engine /release_kv_cache_memory /docs /openapi.json / * /v1 /v1/reset_prefix_cache
    /V1/Load_LoRA_Adapter /v1/sleep/now /server_info
""".split()


@pytest.mark.parametrize("path", PASSED)
def test_inference_is_for_everybody(path: str) -> None:
    assert forwarded(path)


@pytest.mark.parametrize("path", CLOSED)
def test_control_needs_leave(path: str) -> None:
    assert not forwarded(path)


@given(
    st.lists(
        st.sampled_from(["/", "..", ".", "%2e", "%2F", ";", "\\", "sleep", "v1", "x", "%25", "%73leep"]),
        max_size=8,
    )
)
def test_no_trick_gets_a_control_route_through(pieces: list[str]) -> None:
    path = "/" + "".join(pieces)
    if forwarded(path):
        assert not tricky(path)
        assert normal_path(path) not in ("/sleep", "/v1/sleep")
        assert normal_path(path).startswith("/v1/")


def test_leave_is_given_by_name() -> None:
    assert allowed("/sleep", ("/sleep",))
    assert allowed("/sleep/", ("sleep",))
    assert allowed("/Sleep", ("/sleep/",))
    assert not allowed("/sleep/x", ("/sleep",))
    assert not allowed("/sleep", ())


def test_an_engine_that_counts_more_than_there_can_be_is_not_believed() -> None:
    found = read_usage(b'{"prompt_tokens": 1%b, "completion_tokens": -1%b}' % (b"0" * 400, b"0" * 400))
    assert found == Usage(prompt_tokens=1 << 40)


@given(
    prompt=st.integers(0, 10**6),
    completion=st.integers(0, 10**6),
    filler=st.integers(0, 20_000),
    step=st.integers(1, 5000),
)
def test_the_usage_at_the_end_of_an_answer_in_any_pieces(
    prompt: int, completion: int, filler: int, step: int
) -> None:
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    whole = json.dumps({"text": "x" * filler, "usage": usage, "after": None}).encode()
    tail = Tail()
    for at in range(0, len(whole), step):
        tail.add(whole[at : at + step])
    assert tail.usage() == Usage(prompt_tokens=prompt, completion_tokens=completion)


@given(step=st.integers(1, 5000))
def test_no_more_than_the_end_of_an_answer_is_kept(step: int) -> None:
    tail = Tail()
    tail.add(b'"usage":{"prompt_tokens":1}')
    assert tail.usage() is not None
    for _ in range(0, 6 * 1024, step):
        tail.add(b"x" * step)
    assert tail.usage() is None


def test_usage_in_other_words_and_none_at_all() -> None:
    def usage(*pieces: bytes) -> Usage | None:
        tail = Tail()
        for piece in pieces:
            tail.add(piece)
        return tail.usage()

    assert usage(b'{"usage":{"input_tokens":3,"output_tokens":4}}') == Usage(
        prompt_tokens=3, completion_tokens=4
    )
    assert usage(b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}', b'data: {"usage":null}') == Usage(
        prompt_tokens=1, completion_tokens=2
    )
    assert usage() is None
    assert usage(b'{"usage": {"prompt_tok') is None
    assert usage(b'{"usage": {"prompt_tokens": "many"}}') is None
    assert usage(b'{"usage": {"prompt_tokens": -5}}') == Usage()


def test_an_error_event_at_the_end_is_a_failure() -> None:
    tail = Tail()
    tail.add(b'data: {"choices":[]}\n\n')
    assert not tail.failed()
    tail.add(b'data: {"error": {"message": "EngineCore died"}}\n\ndata: [DONE]\n\n')
    assert tail.failed()
    quoted = Tail()
    quoted.add(rb'data: {"text":"\ndata: {\"error\""}' + b"\n\n")
    assert not quoted.failed()


def test_estimates_follow_what_is_measured() -> None:
    work = WorkEstimate()
    for _ in range(400):
        work.learn(body_bytes=4000, usage=Usage(prompt_tokens=1000, completion_tokens=60), choices=2)
    assert work.prefill(8000) == pytest.approx(2000, rel=0.01)
    assert work.decode(None, 1) == pytest.approx(30, abs=1)
    assert work.decode(10, 1) == 10
    assert work.decode(None, 3) == pytest.approx(90, abs=3)
    assert work.request_tokens == pytest.approx(1030, rel=0.01)
    before = work.tokens_per_byte
    work.learn(body_bytes=0, usage=Usage(), choices=1)
    assert work.tokens_per_byte == before


def test_streams_that_say_no_usage_are_as_long_as_expected() -> None:
    work = WorkEstimate()
    for _ in range(400):
        work.learn(body_bytes=5000, usage=Usage(completion_tokens=20), choices=1)
    assert work.prompt_tokens == pytest.approx(work.prefill(5000), rel=0.01)


def test_the_pace_is_that_of_streams_long_ones_counting_for_more() -> None:
    work = WorkEstimate()
    assert (work.pace.prompt_token_s, work.pace.answer_token_s) == (None, None)
    work.learn_pace(prompt_tokens=0, first_s=0.5, answer_tokens=1, rest_s=0.1)
    assert (work.pace.prompt_token_s, work.pace.answer_token_s) == (None, None), "nothing to divide by"
    for prompt in (100, 1900) * 200:
        work.learn_pace(prompt_tokens=prompt, first_s=1.0, answer_tokens=11, rest_s=0.5)
    assert work.pace.prompt_token_s == pytest.approx(0.001, rel=0.1)
    assert work.pace.answer_token_s == pytest.approx(0.05)


def test_every_reason_has_a_status_and_a_body_as_openai_shapes_it() -> None:
    for reason in RejectReason:
        rejection = Rejection(reason=reason, message='say "it"', param="model")
        assert rejection.status == status_of(reason)
        error = json.loads(body_of(rejection))["error"]
        assert error["code"] == reason.value
        assert error["message"] == 'say "it"'
        assert error["param"] == "model"
        assert error["type"].endswith("_error")


# --- snapshots


def routed(node: str, number: int, deployment: str = "d") -> RoutedInstance:
    return RoutedInstance(
        id=InstanceId(f"{deployment}-{number}"),
        deployment=DeploymentName(deployment),
        incarnation=Incarnation(f"{deployment}-{number}.x"),
        url="http://x",
        node=NodeName(node),
        max_concurrency=number,
    )


def part(node: str, *instances: RoutedInstance) -> FleetPart:
    return FleetPart(node=NodeName(node), instances=instances)


def snapshot(epoch: str, *parts: FleetPart) -> FleetSnapshot:
    deployments = (
        RoutedDeployment(name=DeploymentName("d"), names=("llama", "x"), max_concurrency=9),
        RoutedDeployment(name=DeploymentName("e"), names=("x", "d")),
    )
    return FleetSnapshot(epoch=epoch, version=3, deployments=deployments, parts=parts)


def test_a_table_of_a_snapshot() -> None:
    strange = routed("n", 5, "gone")
    table = index(snapshot("a", part("n", routed("n", 0), strange), part("m", routed("m", 1))))
    assert (table.epoch, table.version) == ("a", 3)
    assert table.names == {"llama": "d", "x": "d", "d": "e", "e": "e"}
    assert [i.id for i in table.instances[DeploymentName("d")]] == ["d-0", "d-1"]
    assert table.instances[DeploymentName("e")] == ()
    assert [limit for _, limit in table.limits()] == [9, 1]
    assert table.incarnations() == {"d-0.x", "d-1.x"}


def test_what_a_new_central_does_not_know_yet_is_carried_over() -> None:
    old = snapshot("a", part("n", routed("n", 0)), part("m", routed("m", 1)), part("empty"))
    new = snapshot("b", part("n", routed("n", 2)), part("m"))
    carried = missing_parts(old, new)
    assert [p.node for p in carried] == ["m"]
    merged = with_carried(new, carried)
    assert {p.node: [i.id for i in p.instances] for p in merged.parts} == {"n": ["d-2"], "m": ["d-1"]}
    told = snapshot("b", part("m", routed("m", 7)))
    assert with_carried(told, carried) is told


def test_within_one_epoch_gone_is_gone() -> None:
    old = snapshot("a", part("n", routed("n", 0)))
    assert missing_parts(old, snapshot("a")) == ()
    assert with_carried(old, ()) is old
