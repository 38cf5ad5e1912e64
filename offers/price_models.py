"""What offers cost before. :mod:`offers.prices` is the only writer."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class OfferPrice(models.Model):
    """One change of one offer's price, seen at a listing. An offer whose price never changed has no row."""

    #: Not checked by the database: rows come by the thousand, and offers are never deleted.
    offer = models.ForeignKey(
        "offers.Offer", on_delete=models.CASCADE, related_name="prices", db_constraint=False, db_index=False
    )
    at = models.DateTimeField()
    before = models.DecimalField(max_digits=12, decimal_places=6)
    price_per_hour = models.DecimalField(max_digits=12, decimal_places=6)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["offer", "-at"], name="offer_price_newest"),
            models.Index(fields=["at"], name="offer_price_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.offer_id} {self.price_per_hour}"
