"""One offer as searches hold it and as the API prints it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import QuerySet

from gpubroker.common import clock
from gpubroker.common.renderers import JSONRenderer
from offers.health import machine_key
from offers.models import Offer

#: Offers are trusted fully for this long after the provider was asked, then lose half of it in every half-life.
FRESH_FOR = timedelta(seconds=150)
HALF_LIFE = timedelta(seconds=600)


@dataclass(frozen=True, slots=True)
class Listed:
    """One available offer, with what filters compare and the JSON-ready rest."""

    id: str
    provider: str
    gpu_key: str
    location: str
    vram_gb: int
    gpu_count: int
    price: Decimal
    reliability: float
    cuda: float | None
    fetched_at: datetime
    gpu_type: str
    #: What failures are remembered by: see :func:`offers.health.machine_key`.
    machine: str
    #: Everything the API shows, except ``availability_confidence``, which depends on the time of asking: as JSON, up to
    #: where its number follows.
    printed: bytes
    #: The hash of the row that it was made from, but for ``fetched_at``.
    row: int

    def at(self, fetched_at: datetime) -> Listed:
        """The same offer, seen again in a later listing."""
        if fetched_at == self.fetched_at:
            return self
        # Quotes in a vendor's texts are escaped, so this stands there once.
        printed = self.printed.replace(_stamp(self.fetched_at), _stamp(fetched_at), 1)
        return replace(self, fetched_at=fetched_at, printed=printed)


def freshness(fetched_at: datetime, now: datetime) -> float:
    """1.0 while fresh, then falling by half every ten minutes; two decimals."""
    stale = now - fetched_at - FRESH_FOR
    if stale <= timedelta(0):
        return 1.0
    return round(float(0.5 ** (stale / HALF_LIFE)), 2)


def confidence(fetched_at: datetime, now: datetime, factor: float) -> float:
    """How sure it is that the offer can be rented and works: fresh, and not on a machine that has failed lately."""
    return judged(freshness(fetched_at, now), factor)


def judged(fresh: float, factor: float) -> float:
    """Freshness, less what is thought of the machine; two decimals."""
    return fresh if factor == 1.0 else round(fresh * factor, 2)


@functools.lru_cache(maxsize=16)
def _stamp(fetched_at: datetime) -> bytes:
    """As it stands in what is printed."""
    return b'"fetched_at":' + JSONRenderer().render(clock.iso(fetched_at))


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def shown(offer: Offer) -> dict[str, Any]:
    """The offer as the API prints it. Keys that a vendor does not tell are absent for ``cuda_version``, else null."""
    body: dict[str, Any] = {
        "id": offer.id,
        "provider": offer.provider,
        "provider_id": offer.provider_id,
        "gpu_type": offer.gpu_type,
        "gpu_count": offer.gpu_count,
        "vram_gb": offer.vram_gb,
        "price_per_hour": offer.price_per_hour,
        "location": offer.location,
        "reliability": _number(offer.reliability) or 0.0,
        "available": offer.withdrawn_at is None,
        "max_duration_hours": _number(offer.max_duration_hours) or 0,
        "fetched_at": clock.iso(offer.fetched_at),
        "gpu_vram_total_gb": offer.vram_gb * offer.gpu_count,
        "gpu_name_raw": offer.gpu_name_raw,
        "compute_capability": offer.compute_capability or None,
        "cpu_cores": _number(offer.cpu_cores),
        "ram_gb": _number(offer.ram_gb),
        "disk_gb": _number(offer.disk_gb),
        "storage_price_per_gb_month": offer.storage_price_per_gb_month,
        "inet_down_mbps": _number(offer.inet_down_mbps),
        "inet_up_mbps": _number(offer.inet_up_mbps),
        "verified": offer.verified,
        "datacenter": offer.datacenter,
        "interruptible": offer.interruptible,
        "min_bid_per_hour": offer.min_bid_per_hour,
        "machine_id": offer.machine_id,
    }
    if offer.cuda_version is not None:
        body["cuda_version"] = float(offer.cuda_version)
    return body


#: All of a row that a listing needs: the vendor's own row weighs most, and is not among it. When it was seen is last.
_STEADY = [each.attname for each in Offer._meta.concrete_fields if each.name not in ("raw", "fetched_at")]
_COLUMNS = (*_STEADY, "fetched_at")
_ID = _COLUMNS.index("id")


def loaded(offers: QuerySet[Offer], before: Mapping[str, Listed]) -> Iterator[Listed]:
    """Each of them; those that are as they were ``before``, by id, are not printed again, which is most of the work."""
    rows: Iterable[tuple[Any, ...]] = offers.values_list(*_COLUMNS).iterator(500)
    for row in rows:
        digest, known = hash(row[:-1]), before.get(row[_ID])
        if known is not None and known.row == digest:
            yield known.at(row[-1])
        else:
            yield listed(Offer(**dict(zip(_COLUMNS, row, strict=True))), digest)


def listed(offer: Offer, row: int = 0) -> Listed:
    """``row``: see :attr:`Listed.row`; 0 where nobody will ask for it again."""
    return Listed(
        id=offer.id,
        provider=offer.provider,
        gpu_key=offer.gpu_key,
        location=offer.location.casefold(),
        vram_gb=offer.vram_gb,
        gpu_count=offer.gpu_count,
        price=offer.price_per_hour,
        reliability=_number(offer.reliability) or 0.0,
        cuda=_number(offer.cuda_version),
        fetched_at=offer.fetched_at,
        gpu_type=offer.gpu_type,
        machine=machine_key(offer.provider, offer.machine_id, offer.id),
        printed=JSONRenderer().render(shown(offer))[:-1] + b',"availability_confidence":',
        row=row,
    )
