"""Forms with files (RFC 7578), as far as uploads to `/v1/audio/…` need them."""

import re
from typing import Final

_BOUNDARY: Final = re.compile(r'boundary="?([^";]+)"?')
_NAME: Final = re.compile(r'(?<![a-z])name="([^"]*)"')


def parse_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """Field name to content, files and texts alike. Not a form: an empty one."""
    match = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or match is None:
        return {}
    fields = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + match.group(1).encode())[1:]:
        head, blank, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head.decode(errors="replace"))
        if blank and name is not None:
            fields[name.group(1)] = content
    return fields
