"""What staff is shown of the provider accounts: named fields only, so that no secret of an account slips through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from billing import balance as balances
from billing.balance import Standing
from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.models import ProviderBreaker
from gpubroker.common.money import as_number
from offers.models import ProviderInventory
from providers.base import Balance, Instance, Provider, TemplateData
from providers.extras import Bid, Charge, HostMachine, Invoice, SSHKey, TemplateRef, User
from sessions_app import provider_owners, verify
from sessions_app.models import ProviderWatch
from sessions_app.provider_owners import Owners


def overview() -> list[dict[str, Any]]:
    """Every configured provider by name, from our own books: nobody is asked."""
    watches = {row.provider: row for row in ProviderWatch.objects.all()}
    breakers = {row.provider: row for row in ProviderBreaker.objects.all()}
    inventories = {row.provider: row for row in ProviderInventory.objects.all()}
    accounts = {account.provider: account for account in balances.standings()}
    return [
        {
            "provider": name,
            "capabilities": capabilities(provider),
            "sweep": _sweep(watches.get(name)),
            "breaker": _breaker(breakers.get(name)),
            "offers": _offers(inventories.get(name)),
            "maintenance": _maintenance(inventories.get(name)),
            "balance": _balance(accounts.get(name)),
        }
        for name, provider in sorted(configured.configured().items())
    ]


def capabilities(provider: Provider) -> dict[str, Any]:
    told = asdict(provider.capabilities)
    return {**told, "price_includes": list(told["price_includes"])}


def _sweep(row: ProviderWatch | None) -> dict[str, Any]:
    seen = row or ProviderWatch()
    return {
        "last_complete_at": clock.iso(seen.last_sweep_at),
        "next_at": clock.iso(seen.next_sweep_at),
        "failures_in_a_row": seen.failures_in_a_row,
        "last_error": seen.last_error,
        "held_reason": seen.held_reason,
        "machines": seen.machines,
        "ours": seen.ours,
    }


def _breaker(row: ProviderBreaker | None) -> dict[str, Any]:
    seen = row or ProviderBreaker()
    return {
        "open": seen.open_until is not None,
        "open_until": clock.iso(seen.open_until),
        "failures_in_a_row": seen.failures,
        "last_error": seen.last_error,
    }


def _offers(row: ProviderInventory | None) -> dict[str, Any]:
    seen = row or ProviderInventory()
    return {
        "count": seen.offer_count,
        "last_success_at": clock.iso(seen.last_success_at),
        "failures_in_a_row": seen.failures_in_a_row,
    }


def _maintenance(row: ProviderInventory | None) -> dict[str, Any] | None:
    """``None``: it takes new sessions."""
    if row is None or row.maintenance_since is None:
        return None
    return {"since": clock.iso(row.maintenance_since), "reason": row.maintenance_reason, "by": row.maintenance_by}


def _balance(account: Standing | None) -> dict[str, Any] | None:
    if account is None or account.credit is None:
        return None
    return {name: value for name, value in balances.shown(account).items() if name != "provider"}


def balance(name: str, told: Balance) -> dict[str, Any]:
    """Written down as well, as when it is read by itself."""
    balances.note(name, told)
    account = balances.standing(name)
    assert account is not None
    return balances.shown(account)


def _money(amount: Decimal | None) -> Decimal | None:
    return None if amount is None else as_number(amount)


def instances(name: str, found: Sequence[Instance]) -> list[dict[str, Any]]:
    """By the vendor's id."""
    owners = provider_owners.now_at(name)
    return [_instance(each, owners) for each in sorted(found, key=lambda each: each.instance_id.zfill(40))]


def _instance(each: Instance, owners: Owners) -> dict[str, Any]:
    return {
        "instance_id": each.instance_id,
        "label": each.label,
        "owner": owners.of(each.instance_id, each.label),
        "phase": each.phase,
        "status": each.status,
        "status_message": each.status_message,
        "gpu_name": each.gpu_name,
        "gpu_count": each.gpu_count,
        "machine_id": each.machine_id,
        "gpu_price_per_hour": _money(each.gpu_price_per_hour),
        "storage_price_per_hour": _money(each.storage_price_per_hour),
        "created_at": clock.iso(each.created_at),
        "ends_at": clock.iso(each.ends_at),
    }


def bids(name: str, found: Sequence[Bid]) -> list[dict[str, Any]]:
    owners = provider_owners.now_at(name)
    return [
        {
            "bid_id": each.bid_id,
            "price_per_hour": _money(each.price_per_hour),
            "instance": _instance(each.instance, owners),
        }
        for each in found
    ]


def invoice(each: Invoice) -> dict[str, Any]:
    return {
        "invoice_id": each.invoice_id,
        "kind": each.kind,
        "source": each.source,
        "description": each.description,
        "amount": as_number(each.amount),
        "starts_at": clock.iso(each.starts_at),
        "ends_at": clock.iso(each.ends_at),
    }


def charges(name: str, found: Sequence[Charge]) -> list[dict[str, Any]]:
    owners = provider_owners.ever_at(name, [each.instance_id for each in found])
    return [
        {
            "source": each.source,
            "instance_id": each.instance_id,
            "label": each.label,
            "owner": owners.of(each.instance_id, each.label),
            "description": each.description,
            "amount": as_number(each.amount),
            "starts_at": clock.iso(each.starts_at),
            "ends_at": clock.iso(each.ends_at),
            "items": [
                {"kind": item.kind, "description": item.description, "amount": as_number(item.amount)}
                for item in each.items
            ],
        }
        for each in found
    ]


def total(amounts: Iterable[Decimal]) -> Decimal:
    return as_number(sum(amounts, Decimal(0)))


def ssh_key(each: SSHKey) -> dict[str, Any]:
    return {"key_id": each.key_id, "public_key": each.public_key, "fingerprint": _fingerprint(each.public_key)}


def _fingerprint(public_key: str) -> str:
    """Empty for a key in a form that we cannot read."""
    try:
        return verify.fingerprint(public_key)
    except (ValueError, IndexError):
        return ""


def template(each: TemplateData) -> dict[str, Any]:
    return {
        "template_id": str(each.provider_id), "hash_id": each.hash_id, "name": each.name, "image": each.image,
        "recommended": each.raw.get("recommended") is True,
    }  # fmt: skip


def template_ref(each: TemplateRef) -> dict[str, Any]:
    return {"template_id": str(each.template_id), "hash_id": each.hash_id}


def host_machine(each: HostMachine) -> dict[str, Any]:
    return {
        "machine_id": each.machine_id,
        "hostname": each.hostname,
        "gpu_name": each.gpu_name,
        "gpu_count": each.gpu_count,
        "price_per_gpu_hour": _money(each.gpu_price_per_hour),
        "min_bid_per_gpu_hour": _money(each.min_bid_per_hour),
        "verified": each.verified,
    }


def user(each: User) -> dict[str, Any]:
    return {
        "user_id": each.user_id, "username": each.username, "email": each.email, "credit": _money(each.credit),
        "balance": _money(each.balance),
    }  # fmt: skip
