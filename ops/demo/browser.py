"""A person at a browser: opens pages, fills in their first form, follows redirects, keeps cookies. No script."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass
class Form:
    """A form as it stands on the page: `fields` with their values, the names of what a person types."""

    action: str = ""
    method: str = "get"
    fields: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    password: str | None = None


@dataclass(frozen=True)
class Page:
    """What a person sees: where they are, the heading, the first form."""

    url: str
    status: int
    heading: str
    form: Form | None
    html: str = field(repr=False)


class Browser:
    """`async with Browser() as browser: …`; one person's cookies, gone at the end.

    `connector` knows names and certificates that the system does not.
    """

    def __init__(self, connector: aiohttp.BaseConnector | None = None) -> None:
        self._connector = connector
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # unsafe: by default the jar takes no cookies of hosts that are plain addresses.
        jar = aiohttp.CookieJar(unsafe=True)
        self._http = aiohttp.ClientSession(timeout=TIMEOUT, cookie_jar=jar, connector=self._connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        await self._http.close()

    async def open(self, url: str) -> Page:
        """The page at the end of the redirects."""
        return await self._page("GET", url)

    async def submit(
        self, page: Page, *, text: str = "", password: str = "", button: tuple[str, str] | None = None
    ) -> Page:
        """Fill in the page's first form, press the button (its name and value) → the page that follows.

        Raises:
            ValueError: the page has no form, or not the fields to type into.
        """
        form = page.form
        if form is None:
            raise ValueError(f"no form on {page.heading!r}")
        fields = dict(form.fields)
        for name, typed in ((form.text, text), (form.password, password)):
            if typed and name is None:
                raise ValueError(f"nothing to type into on {page.heading!r}")
            if typed and name is not None:
                fields[name] = typed
        if button is not None:
            fields[button[0]] = button[1]
        return await self._page(
            form.method.upper(), urljoin(page.url, form.action) if form.action else page.url, fields
        )

    async def _page(self, method: str, url: str, fields: dict[str, str] | None = None) -> Page:
        assert self._http is not None, "used outside its context"
        query, data = (fields, None) if method == "GET" else (None, fields)
        async with self._http.request(method, url, params=query, data=data) as answer:
            html = await answer.text()
            reader = _Reader()
            reader.feed(html)
            return Page(str(answer.url), answer.status, " ".join(reader.heading.split()), reader.form, html)


class _Reader(HTMLParser):
    """The first <h1> and the first <form>."""

    def __init__(self) -> None:
        super().__init__()
        self.heading = ""
        self.form: Form | None = None
        self._in_heading = False
        self._in_form = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "h1" and not self.heading:
            self._in_heading = True
        elif tag == "form" and self.form is None:
            self.form = Form(given.get("action", ""), given.get("method", "get").lower())
            self._in_form = True
        elif tag == "input" and self._in_form and self.form is not None:
            self._input(self.form, given)

    def handle_endtag(self, tag: str) -> None:
        if tag == "h1":
            self._in_heading = False
        elif tag == "form":
            self._in_form = False

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.heading += data

    def _input(self, form: Form, given: dict[str, str]) -> None:
        name, kind = given.get("name", ""), given.get("type", "text")
        if not name or kind == "submit":
            return
        if kind == "password":
            form.password = form.password or name
        elif kind != "hidden":
            form.text = form.text or name
        form.fields[name] = given.get("value", "")
