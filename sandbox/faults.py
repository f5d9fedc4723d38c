"""Faults on order: each has a kind, a place it fits (`match`, `page`), and how often it strikes.

| kind | what goes wrong | parameters |
|---|---|---|
| `api_status` | answered `status` (401, 404, 429, 503…) | `status`, `retry_after` (seconds), `as_date`, `page` |
| `api_next` | `pages.next` is one of `NEXT_VALUES`; `repeated` = this page, `loop` = page 1 | `value`, `url`, `page` |
| `api_count` | `pages.count` lies | `value` (added to it; default 1) |
| `api_no_pages` | no `pages` member | `page` |
| `api_reset`, `api_truncate`, `api_html` | connection reset, half a body, HTML instead of JSON | `page` |
| `api_redirect` | 302 to another host | `url` |
| `api_slow` | the answer comes late, showing what was true when it was asked | `seconds`, `page` |
| `api_move` | after this page the first item goes to the other end of its list | `page` |
| `api_lag` | a change shows in the API only so much later; taken by changes | `seconds` |
| `api_stale` | the answer shows what was true at some moment of the last so many | `seconds`, `page` |
| `token_status` | answered `status`; `consume`: the token is used up | `status`, `retry_after`, `consume` |
| `token_drop` | connection reset instead of the answer; the token is used up unless `consume` is false | `consume` |
| `token_html`, `token_missing` | HTML, or the pair without one member (default `refreshToken`); used up | `value` |
| `token_lifetime` | `expiresIn` is this text | `value` |
| `token_used` | `invalid_grant` whatever is presented, nothing used up | |
| `token_slow` | the answer comes late | `seconds` |
| `webhook_lost`, `webhook_double`, `webhook_reorder` | never sent; sent twice; held back until after the next one | |
| `webhook_wrong_hash`, `webhook_no_hash`, `webhook_bad_token` | | |
| `webhook_api_url` | points elsewhere (default: an item that is not there) | `url` |
| `early_webhook` | one webhook between the token exchange and check_connection | |
"""

from random import Random

from msgspec import Struct

KINDS = frozenset(
    [
        "api_status",
        "api_next",
        "api_count",
        "api_no_pages",
        "api_reset",
        "api_truncate",
        "api_html",
        "api_redirect",
        "api_slow",
        "api_move",
        "api_lag",
        "api_stale",
        "token_status",
        "token_drop",
        "token_html",
        "token_missing",
        "token_lifetime",
        "token_used",
        "token_slow",
        "webhook_lost",
        "webhook_double",
        "webhook_reorder",
        "webhook_wrong_hash",
        "webhook_no_hash",
        "webhook_bad_token",
        "webhook_api_url",
        "early_webhook",
    ]
)
NEXT_VALUES = ("null", "empty", "absent", "repeated", "loop", "foreign")


class Fault(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An order. `count` strikes are left (None: without end), each with `probability`."""

    kind: str
    count: int | None = 1
    probability: float = 1.0
    match: str = ""
    """Strikes only where the URL contains this."""
    page: int | None = None
    """Strikes only on this page of a walk."""
    status: int = 503
    retry_after: int | None = None
    as_date: bool = False
    """`Retry-After` as an HTTP-date."""
    seconds: float = 0.0
    consume: bool | None = None
    value: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind}; known: {', '.join(sorted(KINDS))}")
        if self.kind == "api_next" and self.value not in NEXT_VALUES:
            raise ValueError(f"value of api_next is one of {', '.join(NEXT_VALUES)}")

    @property
    def keeps(self) -> bool:
        """A token fault that leaves the presented code or token unused."""
        return (self.kind == "token_status" and not self.consume) or (
            self.kind == "token_drop" and self.consume is False
        )


class Faults:
    """The orders still open. Each kind has its own seeded dice: which webhooks get lost does not depend on how many
    calls there are meanwhile, so a run can be repeated."""

    def __init__(self, seed: int) -> None:
        self._dice = {kind: Random(f"faults {seed} {kind}") for kind in sorted(KINDS)}
        self.open: list[Fault] = []

    def order(self, fault: Fault) -> None:
        self.open.append(fault)

    def clear(self, kind: str | None = None) -> None:
        """Those of a kind, or all."""
        self.open[:] = [one for one in self.open if kind not in (None, one.kind)]

    def take(self, kind: str, url: str = "", page: int | None = None, *, keeps: bool | None = None) -> Fault | None:
        """The first open fault of this kind that fits and strikes; its count goes down."""
        for fault in self.open:
            if fault.kind != kind or not _fits(fault, url, page) or keeps not in (None, fault.keeps):
                continue
            if self.dice(kind) < fault.probability:
                self._use(fault)
                return fault
        return None

    def dice(self, kind: str) -> float:
        """From 0 to 1."""
        return self._dice[kind].random()

    def _use(self, fault: Fault) -> None:
        if fault.count is not None:
            fault.count -= 1
            if fault.count <= 0:
                self.open.remove(fault)


def _fits(fault: Fault, url: str, page: int | None) -> bool:
    return fault.match in url and fault.page in (None, page)
