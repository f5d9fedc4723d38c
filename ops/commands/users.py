"""`gateway users`: who may connect, created, changed and erased by the admin API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from common.settings import OidcSettings, load
from ops.admin import AdminApi
from ops.commands.admin_options import Url, Yes, need_yes, with_admin
from ops.terminal import AsJson, counted, out, print_json, print_table

HEADS = ("userId", "login")

group = typer.Typer(no_args_is_help=True, help="Who may connect: see, create, change and erase users of your platform.")

User = Annotated[str, typer.Argument(help="The platform's own id of the user.")]
Login = Annotated[str | None, typer.Option(help="What the user logs in with; as it was when left out.")]
Ask = Annotated[bool, typer.Option("--ask-password", help="Ask for the password, twice, without showing it.")]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="Its first line is the password; - for stdin.")
]


@group.command("list", epilog="Example: [bold]gateway users list[/bold]")
def list_users(as_json: AsJson = False, url: Url = None) -> None:
    """List users."""
    found = with_admin(url, lambda admin: admin.users())
    if as_json:
        print_json(found)
    else:
        print_table(HEADS, ([one[name] for name in HEADS] for one in found))


@group.command(epilog="Example: [bold]gateway users show 1[/bold]")
def show(user: User, as_json: AsJson = False, url: Url = None) -> None:
    """Show a user: the login, their listings on the platform, their connections."""
    found = with_admin(url, lambda admin: _all_of(admin, user))
    if as_json:
        print_json(found)
    else:
        _print(found)


@group.command(epilog="Example: [bold]gateway users put 1 --login ada@example.com --ask-password[/bold]")
def put(
    user: User,
    login: Login = None,
    ask: Ask = False,
    password_file: PasswordFile = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Create a user, or change the login or the password of one; what is not given stays as it is.

    A password is needed unless users log in with the platform's own identity
    provider (OIDC_ISSUER). It is never a word of the command line, where others would see it.
    """
    if ask and password_file is not None:
        raise typer.BadParameter("give --ask-password or --password-file")
    password = _asked() if ask else None if password_file is None else _first_line(password_file)

    (oidc,) = load(OidcSettings)

    async def work(admin: AdminApi) -> tuple[bool, dict[str, Any]]:
        return await admin.put_user(user, login, password), await admin.user(user)

    created, found = with_admin(url, work)
    if as_json:
        print_json(found)
        return
    print_table(HEADS, [[found[name] for name in HEADS]])
    out.print(f"user {user}: {'created' if created else 'changed'}", markup=False)
    if oidc.oidc_issuer is None and (missing := _missing(found, created, password)):
        out.print(f"cannot log in yet: no {missing}, unless the ingress has an OIDC_ISSUER")


@group.command(epilog="Example: [bold]gateway users delete 1[/bold]")
def delete(user: User, yes: Yes = False, as_json: AsJson = False, url: Url = None) -> None:
    """Erase a person, for good: account, listings, history, whatever is kept of their connections, which end.

    What was published before stays with the subscribers; they are told that the connections have ended.
    """
    need_yes(yes, as_json)
    found = with_admin(url, lambda admin: _all_of(admin, user))
    if not as_json:
        _print(found)
    if not yes:
        typer.confirm(f"erase user {user} and all of this?", abort=True)
    with_admin(url, lambda admin: admin.delete_user(user))
    if as_json:
        print_json({"erased": user, "connections": [one["connectionId"] for one in found["connections"]]})
    else:
        out.print(f"user {user}: erased", markup=False)


async def _all_of(admin: AdminApi, user_id: str) -> dict[str, Any]:
    found = await admin.user(user_id)
    return {
        **found,
        "locations": len(await admin.locations(user_id)),
        "connections": await admin.connections(user_id),
    }


def _print(found: dict[str, Any]) -> None:
    print_table(HEADS, [[found[name] for name in HEADS]])
    out.print(f"{counted(found['locations'], 'location')} known of the platform")
    heads = ("connectionId", "state", "createdAt", "heardAt")
    print_table(heads, ([one[name] for name in heads] for one in found["connections"]))


def _missing(found: dict[str, Any], created: bool, password: str | None) -> str:
    """What a local account lacks, as far as one can tell: of one that was there before, a password is not shown."""
    return " and no ".join(
        [*(["login"] if found["login"] is None else []), *(["password"] if created and password is None else [])]
    )


def _asked() -> str:
    return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))


def _first_line(path: Path) -> str:
    try:
        text = sys.stdin.readline() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise typer.BadParameter("--password-file: the file cannot be read") from None
    first = text.partition("\n")[0].removesuffix("\r")
    if not first:
        raise typer.BadParameter("--password-file: its first line is empty")
    return first


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(group, name="users")
