"""Write the dashboards into the folder that is named."""

import sys
from pathlib import Path

from supervisord_cp.obs.dashboards.files import files


def main(folder: Path) -> None:
    """One file for each dashboard."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
