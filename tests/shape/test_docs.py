"""Links between the project's documents lead somewhere."""

import re

from tests.shape.sources import ROOT, texts

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_links_between_documents_lead_somewhere() -> None:
    dangling = [
        f"{name}: {target}"
        for name, text in texts()
        if name.endswith(".md")
        for target in LINK.findall(text)
        if ":" not in target and not (ROOT / name).parent.joinpath(target).exists()
    ]
    assert not dangling, "\n".join(dangling)
