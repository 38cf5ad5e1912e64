"""``gpubroker key ...``: make, list and revoke API keys. Needs the database, and no running broker."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, TypeVar

import typer

T = TypeVar("T")
BY = "command"

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


def start_django() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    # What is logged of it stands in the answer as well.
    os.environ.setdefault("LOG_LEVEL", "warning")
    import django

    django.setup()


def done(work: Callable[[], T]) -> T:
    """What ``work`` gives; a refusal becomes one sentence and exit code 1."""
    from django.db import DatabaseError

    from gpubroker.common.errors import ApiError

    try:
        return work()
    except ApiError as refusal:
        sys.stderr.write(f"{refusal.message}\n")
    except DatabaseError as error:
        reason = str(error).strip().splitlines()[0]
        sys.stderr.write(f"The database cannot be used: {reason} (is its schema up to date? `gpubroker migrate`)\n")
    raise typer.Exit(1)


@keys.command()
def create(
    consumer: Annotated[str, typer.Option(help="Whose key; made if need be. None for a staff key.")] = "",
    scopes: Annotated[str, typer.Option(help="read, spend or both.")] = "read,spend",
    staff: Annotated[bool, typer.Option("--staff", help="A staff key: all scopes, all consumers.")] = False,
    expires_days: Annotated[int, typer.Option(min=0, max=3650, help="Works so long; 0: for ever.")] = 0,
    name: Annotated[str, typer.Option(help="For people: what it is for.")] = "",
) -> None:
    """Make a key and print it, this once: it is stored nowhere."""
    start_django()
    from billing import services
    from gpubroker.common.principal import STAFF

    wanted = [STAFF] if staff else [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if len(consumer) > 128 or len(name) > 100 or "\x00" in consumer + name:
        sys.stderr.write("--consumer takes at most 128 characters, --name at most 100.\n")
        raise typer.Exit(2)
    made = done(
        lambda: services.make_key(
            consumer or None, by=BY, scopes=wanted, name=name,
            expires_in=timedelta(days=expires_days) if expires_days else None,
        )
    )  # fmt: skip
    typer.echo(made.secret)


@keys.command("list")
def list_keys() -> None:
    """All keys, newest first, without their secrets."""
    start_django()
    from billing import selectors

    rows = done(lambda: [selectors.key_shown(key) for key in selectors.api_keys()])
    for row in rows:
        owner = row["consumer_id"] or "(staff)"
        used = f"last used {row['last_used_at']}" if row["last_used_at"] else "never used"
        ends = f", expires {row['expires_at']}" if row["expires_at"] and row["state"] == "active" else ""
        what = f'  "{row["name"]}"' if row["name"] else ""
        typer.echo(f"{row['prefix']}  {row['state']:<7}  {','.join(row['scopes']):<10}  {owner}  {used}{ends}{what}")
    if not rows:
        typer.echo("There is no key yet; make one: gpubroker key create --consumer NAME", err=True)


@keys.command()
def revoke(prefix: Annotated[str, typer.Argument(help="The visible start of the key, gpb_ and 8 characters.")]) -> None:
    """Revoke a key: within five seconds it works nowhere."""
    start_django()
    from billing import services

    # Somebody who pastes a whole key means its start.
    named = "_".join(prefix.split("_")[:2])
    done(lambda: services.revoke_key(named, by=BY))
    typer.echo(f"{named} is revoked.")
