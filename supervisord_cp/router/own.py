"""The paths that the router answers itself: health and the list of models."""

import json
from typing import Final
from urllib.parse import unquote

from supervisord_cp.core.routing.rejection import Rejected, RejectReason
from supervisord_cp.core.routing.table import RoutingTable
from supervisord_cp.router.answers import JSON, answer, id_line
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.version import __version__

HEALTH: Final = frozenset({"/health", "/ping"})
_MODELS: Final = "/v1/models"
_READERS: Final = frozenset({b"GET", b"HEAD"})
_VERSION: Final = f"x-supervisord-cp-version: {__version__}\r\n".encode()


def is_models(path: str) -> bool:
    """Whether the path is the list of models, or one of them."""
    return path == _MODELS or path.startswith(_MODELS + "/")


def answer_health(exchange: Exchange, request_id: str, *, serving: bool) -> None:
    """200 while requests are taken, else 503; without a body, as vLLM does it."""
    answer(exchange, 200 if serving else 503, b"", _VERSION + id_line(request_id))


def answer_models(exchange: Exchange, request_id: str, table: RoutingTable, created: int) -> None:
    """All names that clients may use, or one of them.

    Raises:
        Rejected: no such model, or a method that does not read.
    """
    if exchange.head.method not in _READERS:
        raise Rejected(RejectReason.BAD_REQUEST, "The list of models can only be read.")
    wanted = unquote(exchange.head.path.removeprefix(_MODELS).strip("/"))
    models = [
        _model(name, deployment.names[0], created)
        for deployment in table.deployments.values()
        for name in deployment.names
        if table.names.get(name) == deployment.name
    ]
    if not wanted:
        shown: object = {"object": "list", "data": models}
    else:
        shown = next((model for model in models if model["id"] == wanted), None)
        if shown is None:
            raise unknown_model(wanted)
    answer(exchange, 200, json.dumps(shown).encode(), JSON + id_line(request_id))


def unknown_model(name: str) -> Rejected:
    """The model is none of ours."""
    message = f"The model `{name[:200]}` does not exist."
    return Rejected(RejectReason.MODEL_UNKNOWN, message, param="model")


def _model(name: str, root: str, created: int) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "supervisord-cp",
        "root": root,
        "parent": None if name == root else root,
    }
