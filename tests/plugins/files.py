"""Policy files that a test writes."""

from pathlib import Path

HEAD = "from supervisord_cp.policy import filter, picker, placer, scaler, scheduler, scorer, Value\n"


def scorer(name: str, body: str, before: str = "", arguments: str = "") -> str:
    """A scorer whose body is given; it begins in line 4 when nothing comes before."""
    extra = f", {arguments}" if arguments else ""
    return (
        f'"""A test\'s."""\n{HEAD}{before}@scorer("{name}"{extra})\n'
        f"def score(request, candidates, context):\n    {body}\n"
    )


def likes(name: str, number: int) -> str:
    """A scorer that likes one instance."""
    return scorer(name, f'return [float(c.instance.id.endswith("-{number}")) for c in candidates]')


def write(folder: Path, name: str, text: str) -> Path:
    """Put a file there as an editor would: beside, then in its place."""
    path = folder / name
    beside = folder / f".{name}.tmp"
    beside.write_text(text)
    beside.replace(path)
    return path
