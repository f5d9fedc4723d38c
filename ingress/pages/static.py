"""What pages are made of besides their text: style sheet, script and icon, from our own origin.

Their addresses carry a hash of their content, so that browsers may keep them for good.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiohttp import hdrs, web

_FOLDER = Path(__file__).parent / "assets"
_TYPES = {
    "style.css": "text/css",
    "console.css": "text/css",
    "follow.js": "text/javascript",
    "console.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_CONTENT = {name: (_FOLDER / name).read_bytes() for name in _TYPES}
_DIGESTS = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _CONTENT.items()}

STATIC_PATH = "/static/{file}"
FOR_GOOD = "public, max-age=31536000, immutable"


def static_url(name: str) -> str:
    """The address of a file, which changes with its content."""
    return f"{STATIC_PATH.format(file=name)}?v={_DIGESTS[name]}"


async def serve(request: web.Request) -> web.Response:
    """GET: the file; 404 when there is none.

    Only under its own hash is it kept: while one process after the other is renewed, an old one is asked for new files.
    """
    name = request.match_info["file"]
    if name not in _CONTENT:
        raise web.HTTPNotFound
    kept = request.query.get("v") == _DIGESTS[name]
    return web.Response(
        body=_CONTENT[name],
        content_type=_TYPES[name],
        charset="utf-8",
        headers={hdrs.CACHE_CONTROL: FOR_GOOD if kept else "no-cache", "X-Content-Type-Options": "nosniff"},
    )
