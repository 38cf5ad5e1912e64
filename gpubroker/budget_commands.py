"""``gpubroker budget ...``: set and show consumers' budgets. Needs the database, and no running broker."""

from __future__ import annotations

import json
import sys
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from gpubroker.key_commands import BY, done, start_django

LARGEST = Decimal(10) ** 8

budgets = typer.Typer(no_args_is_help=True, help="Set and show what consumers may spend.")


def _dollars(text: str) -> Decimal | None:
    """``None`` for an empty text; the command ends with a sentence for what is no amount."""
    try:
        amount = Decimal(text) if text else None
        good = amount is None or (0 <= amount < LARGEST and amount == round(amount, 6))
    except InvalidOperation:
        good = False
    if not good:
        sys.stderr.write(f"{text!r} is no amount of dollars: 0 or more, at most six decimals.\n")
        raise typer.Exit(2)
    return amount


@budgets.command("set")
def set_(
    consumer: Annotated[str, typer.Argument(help="Whose budget.")],
    monthly: Annotated[str, typer.Option(help="Dollars of each calendar month, UTC. Empty: no such limit.")] = "",
    total: Annotated[str, typer.Option(help="Dollars of all time. Empty: no such limit.")] = "",
    soft: Annotated[bool, typer.Option("--soft", help="Only warn; refuse and end nothing.")] = False,
    thresholds: Annotated[str, typer.Option(help="Percents at which budget.threshold is told.")] = "50,80,95",
) -> None:
    """Set a consumer's budget, in place of the one before. Where more runs already, the newest sessions end earlier."""
    limits, percents = (_dollars(monthly), _dollars(total)), [part.strip() for part in thresholds.split(",") if part]
    if not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in percents):
        sys.stderr.write("--thresholds takes whole percents with commas, such as 50,80,95.\n")
        raise typer.Exit(2)
    start_django()
    from billing.budget_setting import Wish
    from sessions_app import budget_views

    wish = Wish(*limits, hard=not soft, thresholds=[int(part) for part in percents])
    done(lambda: budget_views.put(consumer, wish, BY))
    _show(consumer)


@budgets.command()
def show(consumer: Annotated[str, typer.Argument(help="Whose budget.")]) -> None:
    """Limits, what is spent and reserved, and how long it lasts; as the API tells it."""
    start_django()
    _show(consumer)


def _show(consumer: str) -> None:
    from billing import budget_selectors, budget_setting
    from gpubroker.common import clock
    from gpubroker.common.renderers import JSONRenderer

    found = done(lambda: budget_selectors.shown(budget_setting.found(consumer), clock.now()))
    typer.echo(json.dumps(json.loads(JSONRenderer().render(found)), indent=2))
