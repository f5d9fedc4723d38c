"""Everything the stand-in can be told before it starts: a value, built from flags by `__main__` or by a test."""

from enum import StrEnum
from urllib.parse import urlsplit

from msgspec import Struct


class Single(StrEnum):
    """How a single item's `data` is answered; the guide shows a list, a lone object is as likely."""

    LIST = "list"
    OBJECT = "object"


class Blank(StrEnum):
    """How a webhook's member is sent that does not apply, such as `resourceId` of a location."""

    NULL = "null"
    EMPTY = "empty"
    ABSENT = "absent"


class SandboxConfig(Struct, frozen=True, kw_only=True, rename="camel"):
    """Defaults are the guide's; durations are seconds."""

    # where it listens and what it calls itself
    host: str = "127.0.0.1"
    port: int = 8090
    base_url: str = ""
    """Empty: `http://host:port`. Every link it hands out begins with it."""

    # the world
    seed: int = 1
    locations: int = 3
    resources: int = 5
    """About so many rooms per location."""
    rates: int = 3
    """About so many rates per room."""

    # the API
    page_size: int = 4
    single: Single = Single.LIST
    summaries: bool = False
    """Lists hold fewer members than the item's own URL."""
    removed_status: int = 404

    # the provider side: what the gateway knows from the developer portal
    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105  # a stand-in's, which guards nothing
    confirm_uris: tuple[str, ...] = ()
    """Empty: `{platform_url}/confirm`."""
    token_seconds: int = 600
    code_seconds: int = 300
    secret_mark: str = ""
    """What every code and token that it issues begins with, so that one can be found where none belongs."""
    auto_approve: bool = False
    """Authorise at once, without the page with the Allow button."""

    # the platform, as registered in the developer portal
    platform_url: str = "http://localhost:8080"
    """The guide's `siteUri`."""
    api_path: str = "/api/"
    """`apiUri` is `siteUri` + this."""
    webhook_path: str = "/update/"
    check_connection_path: str = "/check_connection/"
    webhook_under_site: bool = False
    """The guide appends `webhookPath` to `apiUri` in one place, to `siteUri` in another."""
    naive_joins: bool = False
    """Join base and path as text, which gives `//`."""
    platform_client_id: str = "platform-client"
    platform_client_secret: str = "platform-secret"  # noqa: S105  # a stand-in's, which guards nothing

    # webhooks
    hash_recipe: str = "hmac-sha256:sorted:hex"
    """`ALGO:SERIALISATION:ENCODING`; empty: no `hash` member."""
    hash_key: str = ""
    """Empty: `platform_client_secret`."""
    later_schema: bool = False
    """Add `syncarooId`, `action` and `actionCallback`, as later webhooks have."""
    blank: Blank = Blank.NULL
    webhook_timeout: float = 10.0
    concurrency: int = 16
    """Webhooks under way at once, at most."""
    first_burst: bool = True
    """Send the initial set of webhooks after the first check_connection."""
    change_every: float = 0.0
    """Seconds between random changes by itself; 0: never."""
    check_every: float = 0.0
    """Seconds between repeated check_connection calls; 0: only when told."""

    @property
    def url(self) -> str:
        """The base of every link, without a slash at its end."""
        return self.base_url.rstrip("/") or f"http://{self.host}:{self.port}"

    @property
    def netloc(self) -> str:
        """`host:port` that the Host header of an honest caller shows."""
        return urlsplit(self.url).netloc

    @property
    def foreign_url(self) -> str:
        """This server by another name: no honest caller uses it, and what is sent there still shows in the records."""
        host, port = urlsplit(self.url).hostname, urlsplit(self.url).port
        return f"http://{'127.0.0.1' if host == 'localhost' else 'localhost'}:{port}"

    @property
    def redirect_uri(self) -> str:
        """Where a platform sends its user back to."""
        return f"{self.url}/connection"

    @property
    def allowed_confirm_uris(self) -> tuple[str, ...]:
        return self.confirm_uris or (f"{self.platform_url.rstrip('/')}/confirm",)

    @property
    def signing_key(self) -> str:
        return self.hash_key or self.platform_client_secret

    @property
    def auth_uri(self) -> str:
        return self._join(self._api_uri, "/oauth/authorize")

    @property
    def auth_token_uri(self) -> str:
        return self._join(self._api_uri, "/oauth/token")

    @property
    def webhook_uri(self) -> str:
        return self._join(self.platform_url if self.webhook_under_site else self._api_uri, self.webhook_path)

    @property
    def check_connection_uri(self) -> str:
        return self._join(self._api_uri, self.check_connection_path)

    @property
    def _api_uri(self) -> str:
        return f"{self.platform_url.rstrip('/')}/{self.api_path.strip('/')}/"

    def _join(self, base: str, path: str) -> str:
        return base + path if self.naive_joins else f"{base.rstrip('/')}/{path.lstrip('/')}"
