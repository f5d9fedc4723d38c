"""The pages for people: Jinja templates of this package, everything escaped, no script."""

from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader

_TEMPLATES = Environment(loader=PackageLoader("sandbox"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def page(template: str, status: int = 200, **values: Any) -> web.Response:
    """An HTML answer that no cache keeps."""
    text = _TEMPLATES.get_template(template).render(**values)
    return web.Response(text=text, status=status, content_type="text/html", headers={"Cache-Control": "no-store"})
