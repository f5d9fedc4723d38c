"""A schema's next version, from the model to what is served; and a past in git that no edit gets around."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from common.codec import loads
from ingress.documents.handler import DocumentsHandler
from ingress.documents.place import EXAMPLE
from ops.broker import NotHere
from ops.broker.install import install
from ops.schema_history import WITHDRAWN
from schemas.catalogue import DOCUMENTS, rendered
from schemas.events import GrantChanged
from tests.unit.test_schema_documents import gateway, path_of

TODAY = GrantChanged.SCHEMA_VERSION
GRANT = f"grant.changed/{TODAY}.json"
ACCOUNT_IS_GONE = f"grant.changed/{TODAY}: account: the member is gone"
HOW = "The version must go up: SCHEMA_VERSION of an event (schemas/events.py), `v` of a message (schemas/messages.py)."


@dataclass
class Checkout:
    """A repository that keeps schemas, and the commands that look at it."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    @property
    def folder(self) -> Path:
        return self.root / "schemas" / "documents"

    @property
    def grant(self) -> Path:
        return self.folder / GRANT

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", "-C", str(self.root), *words], check=True, capture_output=True, timeout=60)
        return done.stdout.decode().strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "more")

    def run(self, command: str) -> tuple[int, list[str]]:
        """Its code and lines."""
        code = gateway(self.monkeypatch, command, self.folder)
        said = self.capsys.readouterr()
        return code, [*said.out.splitlines(), *said.err.splitlines()]

    def had_an_account(self) -> None:
        """The first commit knows a member that the code does not."""
        today = self.grant.read_text()
        schema = loads(today.encode())
        schema["properties"]["account"] = {"type": "string"}
        self.grant.write_text(rendered(schema))
        self.commit()
        self.grant.write_text(today)


@pytest.fixture(scope="module")
def _git() -> None:
    """Installed when we may."""
    try:
        if shutil.which("git") is None:
            install("git", os.environ, print)
    except NotHere as error:
        pytest.skip(f"needs git, and {error}")


@pytest.fixture
def checkout(
    _git: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Checkout:
    """With today's schemas, and no commit yet."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    made = Checkout(tmp_path / "checkout", monkeypatch, capsys)
    shutil.copytree(DOCUMENTS, made.folder, ignore=shutil.ignore_patterns(WITHDRAWN))
    made.git("init", "--quiet", "--initial-branch=main")
    return made


async def test_a_version_goes_up_and_the_one_before_stays_and_is_served(checkout: Checkout) -> None:
    checkout.had_an_account()
    checkout.git("checkout", "--", ".")
    before = checkout.grant.read_text()
    assert checkout.run("write") == (1, [ACCOUNT_IS_GONE, HOW])

    checkout.monkeypatch.setattr(GrantChanged, "SCHEMA_VERSION", TODAY + 1)
    written = f"grant.changed/{TODAY + 1}.json"
    code, lines = checkout.run("write")
    assert (code, f"{written}: written" in lines, f"{GRANT}: written" in lines) == (0, True, False)
    assert checkout.run("check") == (0, [])
    assert checkout.grant.read_text() == before
    checkout.commit()
    assert checkout.run("check") == (0, [])

    app = web.Application()
    app.add_routes(DocumentsHandler(EXAMPLE, checkout.folder).routes())
    async with TestClient(TestServer(app)) as client:
        index = loads(await (await client.get("/schemas")).read())
        assert index == loads((checkout.folder / "index.json").read_bytes())
        versions = {one["version"] for one in index["items"] if one["name"] == "grant.changed"}
        assert {TODAY, TODAY + 1} <= versions
        for name in (GRANT, written):
            answer = await client.get(f"/schemas/{name.removesuffix('.json')}")
            assert loads(await answer.read()) == loads((checkout.folder / name).read_bytes())


# --- what was said is kept -----------------------------------------------------------------------------------------


def test_an_edit_by_hand_does_not_break_what_was_committed(checkout: Checkout) -> None:
    checkout.had_an_account()
    assert checkout.run("check") == (1, [ACCOUNT_IS_GONE, HOW])
    checkout.commit()
    assert checkout.run("check") == (1, [ACCOUNT_IS_GONE, HOW]), "nor does the next commit"


def test_a_schema_that_is_deleted_and_written_again_is_still_the_same(checkout: Checkout) -> None:
    checkout.had_an_account()
    checkout.grant.unlink()
    assert checkout.run("write") == (1, [ACCOUNT_IS_GONE, HOW])
    assert not checkout.grant.exists()
    checkout.commit()
    assert checkout.run("write") == (1, [ACCOUNT_IS_GONE, HOW])


def test_what_was_added_later_is_promised_too(checkout: Checkout) -> None:
    checkout.commit()
    checkout.had_an_account()
    checkout.commit()
    assert checkout.run("check") == (1, [ACCOUNT_IS_GONE, HOW])


def test_what_came_by_a_merge_is_promised_too(checkout: Checkout) -> None:
    checkout.commit()
    checkout.git("switch", "--quiet", "--create", "side")
    checkout.had_an_account()
    checkout.git("checkout", "--quiet", "--", ".")
    checkout.git("switch", "--quiet", "main")
    checkout.git("merge", "--quiet", "--no-ff", "--message", "merged", "side")
    checkout.git("checkout", "--quiet", "HEAD^1", "--", ".")
    checkout.commit()
    assert checkout.run("check") == (1, [ACCOUNT_IS_GONE, HOW])


def test_an_earlier_version_that_is_gone_is_missed(checkout: Checkout) -> None:
    earlier = checkout.folder / "grant.changed" / "0.json"
    shutil.copy(checkout.grant, earlier)
    checkout.run("write")
    checkout.commit()
    assert checkout.run("check") == (0, [])
    earlier.unlink()
    gone = "grant.changed/0: it was published and is gone; what was written by it is still read"
    assert checkout.run("write") == (1, [gone, HOW])
    assert checkout.run("check") == (1, ["index.json: differs; run `make schemas`", gone, HOW])


def test_what_no_model_makes_any_more_stays_and_what_never_was_published_does_not(checkout: Checkout) -> None:
    checkout.commit()
    path_of(checkout.folder, GrantChanged).with_name("0.json").write_text(checkout.grant.read_text())
    checkout.run("write")
    assert checkout.run("check") == (1, ["grant.changed/0.json: nothing makes it; delete it"])
    checkout.commit()
    assert checkout.run("check") == (0, [])


def test_what_is_listed_as_withdrawn_was_never_said(checkout: Checkout) -> None:
    checkout.had_an_account()
    blob = checkout.git("rev-parse", f"HEAD:schemas/documents/{GRANT}")
    (checkout.folder / WITHDRAWN).write_text(f"# corrected\n\n{blob} grant.changed/{TODAY} before the first release\n")
    assert checkout.run("check") == (0, [])


# --- where there is no past ----------------------------------------------------------------------------------------

NOT_COMPARED = "Not compared with what the schemas were before: "


def test_a_shallow_clone_says_that_it_is_one(checkout: Checkout) -> None:
    checkout.had_an_account()
    checkout.commit()
    clone = checkout.root.with_name("clone")
    checkout.git("clone", "--quiet", "--depth=1", f"file://{checkout.root}", str(clone))
    checkout.root = clone
    assert checkout.run("check") == (0, [f"{NOT_COMPARED}the clone is shallow"])


def test_what_is_no_repository_says_so(checkout: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(checkout.root / ".git")
    code, (line,) = checkout.run("check")
    assert (code, line.startswith(f"{NOT_COMPARED}git: fatal: not a git repository")) == (0, True)
    checkout.monkeypatch.setenv("PATH", str(tmp_path))
    code, (line,) = checkout.run("check")
    assert (code, line.startswith(f"{NOT_COMPARED}git: [Errno 2]")) == (0, True)


def test_where_nothing_is_committed_yet_nothing_is_promised(checkout: Checkout) -> None:
    checkout.git("commit", "--quiet", "--allow-empty", "--message", "begun")
    assert checkout.run("check") == (0, [f"{NOT_COMPARED}no commit has schemas here"])
