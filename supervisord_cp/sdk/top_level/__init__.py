"""The Python API of supervisord_cp under its short name: installed as the package `control_plane`."""

from supervisord_cp.sdk import *  # noqa: F403
from supervisord_cp.sdk import __all__  # noqa: F401
