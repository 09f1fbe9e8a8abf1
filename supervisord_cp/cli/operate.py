"""Commands that change what is wanted."""

from typing import Any, Final

import click

from supervisord_cp.cli.client import ControlClient
from supervisord_cp.cli.connect import with_client
from supervisord_cp.cli.options import Command, duration
from supervisord_cp.cli.target import Names, Target, resolve, resolve_node
from supervisord_cp.errors import SupervisordError

ROUTER: Final = "router"
"""What `restart` also takes; a deployment of this name is `deployment/router`."""
RESTART_S: Final = 45.0
TARGET_HELP: Final = "TARGET is an instance, a deployment, NODE, NODE:GPU or `all`."


def deadline_option(command: Command) -> Command:
    """`--deadline`."""
    return click.option(
        "--deadline",
        type=duration,
        metavar="TIME",
        help="End what is still open after this long, such as 5m.",
    )(command)


def replicas_or_auto(text: str) -> int | str:
    """A number of replicas, or `auto`."""
    if text == "auto":
        return text
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a number nor `auto`")
    return int(text)


@click.command()
@with_client
@click.argument("deployment")
@click.argument("replicas", type=replicas_or_auto, metavar="N|auto")
@click.option(
    "--for", "for_s", type=duration, metavar="TIME", help="Back to automatic after it, such as 30m."
)
def scale(client: ControlClient, deployment: str, replicas: int | str, for_s: float | None) -> None:
    """Set how many replicas DEPLOYMENT has, or `auto`.

    The number is kept over restarts, until `auto` gives it back to its
    configuration or --for has passed.
    """
    if replicas == "auto" and for_s is not None:
        raise click.UsageError("`auto` has no --for: it holds until the next `scale`")
    body: dict[str, object] = {"replicas": replicas}
    if for_s is not None:
        body["for_s"] = for_s
    answer = client.post("deployments", deployment, "scale", body=body)
    _say(answer, f"{deployment}: {'automatic' if replicas == 'auto' else f'{replicas} wanted'}")


@click.command(epilog=TARGET_HELP)
@with_client
@click.argument("target")
def start(client: ControlClient, target: str) -> None:
    """Start what was stopped or drained."""
    _act(client, "start", target, None)


@click.command(epilog=TARGET_HELP)
@with_client
@click.argument("target")
@deadline_option
@click.option(
    "--unlisted", is_flag=True, help="TARGET is an instance that central has no place for: end it for good."
)
def stop(client: ControlClient, target: str, deadline: float | None, unlisted: bool) -> None:
    """Stop TARGET and hold it stopped until `start`.

    What is `unlisted` (it runs, and nobody asked central for it) is ended for good, and only with --unlisted.
    """
    _act(client, "stop", target, deadline, unlisted=unlisted)


@click.command(epilog=TARGET_HELP)
@with_client
@click.argument("target")
@deadline_option
def restart(client: ControlClient, target: str, deadline: float | None) -> None:
    """Replace TARGET's engines, losing no request.

    That is when others can take them; else they wait for the new engine. `router` replaces the processes of
    all routers: nothing is refused meanwhile, and open requests finish in the old ones.
    """
    if target == ROUTER:
        _restart_routers(client)
    else:
        _act(client, "restart", target, deadline)


@click.command(epilog=TARGET_HELP)
@with_client
@click.argument("target")
@deadline_option
def drain(client: ControlClient, target: str, deadline: float | None) -> None:
    """Wait for TARGET's requests, then stop and hold it.

    It is sent nothing new at once.
    """
    _act(client, "drain", target, deadline)


@click.command()
@with_client
@click.argument("node", metavar="NODE[:GPU]")
def cordon(client: ControlClient, node: str) -> None:
    """Place nothing new on a node or a GPU.

    What runs there runs on.
    """
    _cordon(client, "cordon", node)


@click.command()
@with_client
@click.argument("node", metavar="NODE[:GPU]")
def uncordon(client: ControlClient, node: str) -> None:
    """Let a node or a GPU be used again."""
    _cordon(client, "uncordon", node)


@click.command()
@with_client
@click.argument("node")
def forget(client: ControlClient, node: str) -> None:
    """Give up a NODE that is gone for good.

    Its replicas are placed elsewhere. One that is connected is refused; one that comes back is a new node.
    """
    target = resolve_node(node, _names(client))
    if target.gpu:
        raise click.UsageError(f"only a whole node is forgotten; to keep engines away: cordon {node}")
    _post(client, "forget", target, {})


def _act(
    client: ControlClient, verb: str, text: str, deadline: float | None, *, unlisted: bool = False
) -> None:
    body: dict[str, object] = {} if deadline is None else {"deadline_s": deadline}
    targets = resolve(text, _names(client))
    if unlisted:
        body["unlisted"] = True
        if [target.kind for target in targets] != ["instance"]:
            raise click.UsageError(f"--unlisted ends one instance by its name, and {text} is none")
    for target in targets:
        _post(client, verb, target, body)


def _restart_routers(client: ControlClient) -> None:
    answers = client.post("routers", "restart", body={}, timeout_s=RESTART_S).get("routers", {})
    if not answers:
        raise SupervisordError("no router is connected")
    for address, problem in answers.items():
        click.echo(f"router {address}: {problem or 'restarted'}", err=bool(problem))
    if any(answers.values()):
        raise SupervisordError("not every router was restarted")


def _cordon(client: ControlClient, verb: str, text: str) -> None:
    _post(client, verb, resolve_node(text, _names(client)), {})


def _post(client: ControlClient, verb: str, target: Target, body: dict[str, object]) -> None:
    if target.gpu:
        body = {**body, "gpu": target.gpu}
    _say(client.post(target.collection, target.id, verb, body=body), f"{verb} {target}")


def _names(client: ControlClient) -> Names:
    return Names(
        deployments=tuple(item["name"] for item in client.get("deployments")),
        instances=tuple(item["id"] for item in client.get("instances")),
        nodes={
            item["name"]: [*(item.get("gpus") or ()), *(item.get("slots") or ())]
            for item in client.get("nodes")
        },
    )


def _say(answer: Any, otherwise: str) -> None:
    """What central did: its message, or the instances that it acted on."""
    fields = answer if isinstance(answer, dict) else {}
    if "instances" in fields:
        click.echo(f"{otherwise}: {', '.join(fields['instances']) or 'nothing to do'}")
    else:
        click.echo(fields.get("message") or otherwise)
