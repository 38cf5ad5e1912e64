"""Celery shells. What is lost here is found again by its due time."""

from __future__ import annotations

from celery import shared_task

from billing import balance, ledger
from billing import deliver as delivering


@shared_task(name="billing.tasks.deliver", ignore_result=True)
def deliver() -> None:
    delivering.drain()


@shared_task(name="billing.tasks.purge_webhooks", ignore_result=True)
def purge_webhooks() -> None:
    delivering.purge()


@shared_task(name="billing.tasks.accrue", ignore_result=True)
def accrue() -> None:
    ledger.accrue()


@shared_task(name="billing.tasks.read_balances", ignore_result=True)
def read_balances() -> None:
    for name in balance.claim_due():
        read_balance.delay(name)


@shared_task(name="billing.tasks.read_balance", ignore_result=True)
def read_balance(name: str) -> None:
    balance.read(name)
