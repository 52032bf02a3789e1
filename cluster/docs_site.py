"""A hook of mkdocs: pages link to files of the repository, which the site does not have.

GitHub and editors follow such a link; on the site it becomes the file's path from the root.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final

_LINK_OR_CODE: Final = re.compile(
    r"(?P<code>^( *)```.*?^\2```$|`[^`\n]+`)"
    r"|(?<!!)\[(?P<words>[^\]]*)\]\((?P<to>[^)\s#]+)[^)]*\)",
    re.MULTILINE | re.DOTALL,
)
"""Code comes first, so that a link in it is left as it is; pictures are left too."""


def on_page_markdown(markdown: str, *, src_uri: str = "", **event: Any) -> str:
    """Replace links that leave ``docs/`` by the path of the file.

    Args:
        markdown: the page.
        src_uri: the page's path in ``docs/``; by default that of the event's page.
        event: what else mkdocs tells: page, config, files.
    """
    folder = posixpath.dirname(src_uri or event["page"].file.src_uri)

    def changed(match: re.Match[str]) -> str:
        to = match["to"]
        path = posixpath.normpath(posixpath.join("docs", folder, to or ""))
        if match["code"] or re.match("[a-z]+:", to) or path.startswith("docs/"):
            return match[0]
        return f"{match['words']} (`{path}`)"

    return _LINK_OR_CODE.sub(changed, markdown)
