"""What `install grafana` puts in place: the packaged dashboards, and what lets Grafana find them."""

from pathlib import Path
from typing import Final

from supervisord_cp.cli.install_steps import Put, Remove, Step

PROVISIONING: Final = Path("etc/grafana/provisioning")
DASHBOARDS: Final = Path("var/lib/grafana/dashboards/supervisord-cp")
PACKAGED_PROMETHEUS: Final = "http://127.0.0.1:9090"
"""What the packaged datasource names."""


def plan(source: Path, prometheus: str, *, root: Path = Path("/")) -> tuple[Step, ...]:
    """The steps, in order. `source`: the packaged files; `prometheus`: its address. Dashboards of ours that
    are packaged no longer go."""
    steps: list[Step] = []
    for file in sorted((source / "provisioning").glob("*/*.yaml")):
        text = file.read_text(encoding="utf-8").replace(PACKAGED_PROMETHEUS, prometheus)
        steps.append(Put(path=root / PROVISIONING / file.parent.name / file.name, text=text))
    boards = sorted((source / "dashboards").glob("*.json"))
    steps += [Put(path=root / DASHBOARDS / one.name, text=one.read_text(encoding="utf-8")) for one in boards]
    names = {one.name for one in boards}
    there = sorted((root / DASHBOARDS).glob("supervisord-cp-*.json"))
    steps += [Remove(path=path) for path in there if path.name not in names]
    return tuple(steps)
