"""`ratchet audit`: shows the audit log and verifies its hash chain. The client verifies; it does
not rely on the registry for that.
"""

from typing import Annotated, Any

import typer

from ratchet import console
from ratchet.dead_letters.search import parse_since
from ratchet.local_stack.token_store import token_for
from ratchet.options import DEFAULT_REGISTRY, DEFAULT_STATE, Json, Registry, State, Token
from ratchet.registry_client import RegistryClient
from shared.audit_chain import BrokenChain, ChainVerifier
from shared.clock import SystemClock

_PATH = "/api/audit"

audit = typer.Typer(no_args_is_help=True, help="Show the audit log and verify its hash chain.")


@audit.command("show")
def show_audit(
    model: str,
    since: Annotated[str | None, typer.Option(help="A time, or an age: 30m, 12h, 7d.")] = None,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Show the audit log of a model, oldest entry first: moves, holds, withdrawals, removals,
    rejected candidates and refused requests, with who asked for each.
    """
    query = {"model": model}
    if since is not None:
        query["since"] = parse_since(since, SystemClock().now()).isoformat()
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        items = client.get_all(_PATH, **query)
    if json:
        console.print_json({"items": items})
        return
    console.print_table(
        ("number", "at", "action", "by", "from", "to", "reason"),
        [
            (
                item["number"],
                item["at"],
                item["action"],
                item["operator"] or item["actor"],
                item["from"],
                item["to"] or item["evidence"].get("run_id"),
                item["reason"],
            )
            for item in items
        ],
    )


@audit.command("verify")
def verify_audit(
    expect: Annotated[
        str | None,
        typer.Option(
            help="A hash that you noted earlier: fail unless an entry still has it. Without one, "
            "removed newest entries are not noticed."
        ),
    ] = None,
    registry: Registry = DEFAULT_REGISTRY,
    token: Token = None,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> None:
    """Verify the hash chain of the whole audit log, and name its first broken entry. Note the head
    that it prints outside the database.
    """
    with RegistryClient(registry, token_for(registry, state, token)) as client:
        result = _verify(client, expect)
    if json:
        console.print_json(result)
    elif result["broken"] is None:
        console.print_text(
            f"{result['entries']} entries, unbroken; head {result['head']}"
            + (f"; entry {result['expected_at']} has the expected hash" if expect else "")
            + (
                f"; {result['unchained']} entries of earlier releases are outside the chain"
                if result["unchained"]
                else ""
            )
        )
    if result["broken"] is not None:
        if not json:
            raise BrokenChain(result["broken"])
        raise typer.Exit(1)


def _verify(client: RegistryClient, expect: str | None) -> dict[str, Any]:
    """Verify the chain, page by page. `broken` is the first problem, None without one."""
    chain, expected_at, unchained, broken = ChainVerifier(), None, 0, None
    try:
        for page in client.pages(_PATH):
            unchained = page["unchained"]
            for entry in page["items"]:
                chain.add(entry)
                if chain.head == expect:
                    expected_at = chain.number
        if expect is not None and expected_at is None:
            raise BrokenChain(
                f"no entry has the expected hash {expect}: entries up to it were removed or "
                "replaced; keep the database and compare it with a backup"
            )
    except BrokenChain as error:
        broken = str(error)
    return {
        "entries": chain.number,
        "head": chain.head,
        "expected_at": expected_at,
        "unchained": unchained,
        "broken": broken,
    }
