"""Files for operators that come with the package: in a wheel inside it, in a checkout beside it."""

from pathlib import Path

import supervisord_cp
from supervisord_cp.errors import SupervisordError


def packaged(name: str) -> Path:
    """A folder of `packaging/`.

    Raises:
        SupervisordError: this installation does not have it.
    """
    package = Path(supervisord_cp.__file__).parent
    places = (package / "_data" / "packaging" / name, package.parent / "packaging" / name)
    for place in places:
        if place.is_dir():
            return place
    raise SupervisordError(f"this installation has no {name} files; looked at {places[0]} and {places[1]}")
