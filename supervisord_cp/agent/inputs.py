"""What a launch depends on besides its specification, as a digest: when it changes, what failed may work."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from supervisord_cp.config.schema import AllowConfig
from supervisord_cp.engines.base import local_model
from supervisord_cp.engines.environment import matches
from supervisord_cp.model.launch import LaunchSpec, program_of

FILES: Final = 1000
"""Files of a model folder that are looked at."""
VARIABLES: Final = (
    "PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "HF_*",
    "HUGGING_FACE_*",
    "VLLM_*",
    "CUDA_*",
    "NVIDIA_*",
    "NCCL_*",
    "TORCH*",
    "PYTORCH_*",
    "TRANSFORMERS_*",
    "*_PROXY",
    "*_proxy",
    "SSL_CERT_*",
    "REQUESTS_CA_BUNDLE",
)
"""Inherited variables that decide whether an engine starts. A terminal's own change all the time."""


def inputs_of(spec: LaunchSpec, allow: AllowConfig, environ: Mapping[str, str]) -> str:
    """The digest for one specification on this node. Blocks on the disk; never fails."""
    digest = hashlib.blake2b(digest_size=8)
    for part in _parts(spec, allow, environ):
        digest.update(part.encode(errors="surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(spec: LaunchSpec, allow: AllowConfig, environ: Mapping[str, str]) -> Iterator[str]:
    yield msgspec.json.encode(allow, order="sorted", enc_hook=str).decode()
    yield from (f"{name}={environ[name]}" for name in sorted(environ) if matches(name, VARIABLES))
    program = program_of(spec)
    yield _look(shutil.which(program) or program if program else sys.executable)
    model = local_model(spec.model)
    if model is not None:
        yield _look(model)
        yield from _folder(model)


def _folder(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry, _ in zip(entries, range(FILES), strict=False))
    except OSError:
        return
    yield from (_look(folder / name) for name in names)


def _look(path: str | Path) -> str:
    """A file as it is now, behind all links."""
    try:
        status = Path(path).stat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{os.path.realpath(path)} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
