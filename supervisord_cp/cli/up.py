"""`up`: everything on this host."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from supervisord_cp.cli.options import listen
from supervisord_cp.errors import UsageError

if TYPE_CHECKING:
    from supervisord_cp.config.schema import Listen

API_DEFAULT: Final = "127.0.0.1:9000"
CONTROL_DEFAULT: Final = "127.0.0.1:9001"


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/supervisord-cp`, or the same under the home directory."""
    base = environment.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "supervisord-cp"


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("model", required=False, default="")
@click.argument("engine_args", nargs=-1, type=click.UNPROCESSED, metavar="[-- ENGINE_ARGS]...")
@click.option("--replicas", type=click.IntRange(min=1), metavar="N", help="Engines; one per free GPU, else.")
@click.option("--engine", type=click.Choice(("vllm", "fake", "command")), help="Else vllm where it can be.")
@click.option("--vllm", metavar="PATH", help="The vllm program; else the one on PATH.")
@click.option("--device", type=click.Choice(("auto", "cuda", "cpu")), default="auto", show_default=True)
@click.option(
    "--api",
    type=listen,
    default=API_DEFAULT,
    show_default=True,
    metavar="HOST:PORT",
    help="Where OpenAI clients connect.",
)
@click.option(
    "--control",
    type=listen,
    default=CONTROL_DEFAULT,
    show_default=True,
    metavar="HOST:PORT",
    help="Where operators connect.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="State and logs; else ~/.local/state/supervisord-cp.",
)
@click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run what this file configures instead.",
)
@click.pass_context
def up(
    ctx: click.Context,
    model: str,
    engine_args: tuple[str, ...],
    replicas: int | None,
    engine: str | None,
    vllm: str | None,
    device: str,
    api: "Listen",
    control: "Listen",
    state_dir: Path | None,
    config: Path | None,
) -> None:
    """Run everything on this host until Ctrl-C.

    MODEL is a folder or a Hugging Face id. What follows `--` goes to the engine as it is, such as
    `-- --max-model-len 8192`; with --engine command it is the whole command.
    """
    from supervisord_cp.cli.up_plan import Wish
    from supervisord_cp.cli.up_run import run_file, run_wish

    if model.startswith("--"):  # `up -- --flag`: no model was named
        model, engine_args = "", (model, *engine_args)
    folder = (state_dir or default_state_dir(os.environ)).resolve()
    if config is not None:
        _refuse_beside_config(ctx)
        sys.exit(run_file(config, folder))
    wish = Wish(
        model=_absolute_if_folder(model),
        replicas=replicas,
        engine=engine or "",
        vllm=_program(vllm) if vllm else "",
        device=device,
        engine_args=_absolute_program(engine_args) if engine == "command" else engine_args,
    )
    sys.exit(run_wish(wish, api, control, folder))


def _refuse_beside_config(ctx: click.Context) -> None:
    """A configuration file says all that the other options say."""
    said = [
        name
        for name in ctx.params
        if name not in ("config", "state_dir")
        and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if said:
        names = ", ".join("MODEL" if name in ("model", "engine_args") else f"--{name}" for name in said)
        raise UsageError(f"{names} cannot be combined with -c: the file says it all")


def _absolute_if_folder(model: str) -> str:
    if Path(model).is_dir() and model:
        return str(Path(model).resolve())
    if model.startswith(("/", "./", "../", "~")):
        raise UsageError(f"{model} is no folder")
    return model


def _absolute_program(command: tuple[str, ...]) -> tuple[str, ...]:
    """A path is meant from here, not from where the configuration is written."""
    program, *rest = command or ("",)
    return (str(Path(program).absolute()), *rest) if "/" in program else command


def _program(vllm: str) -> str:
    found = shutil.which(vllm)
    if found is None:
        raise UsageError(f"--vllm {vllm}: no such program")
    return str(Path(found).absolute())
