"""The inventory's shapes: query parameters, and answers for the schema."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from gpubroker.common.api import FiniteFloatField, PageQuery, ProviderField


class InventoryParams(PageQuery):
    provider = ProviderField(required=False, help_text="Filter by provider")
    gpu_type = serializers.CharField(
        required=False, max_length=64, help_text='GPU type, case and spaces do not matter: "RTX 4090" = "rtx4090"'
    )
    location = serializers.CharField(required=False, max_length=128, help_text="Part of the location's name")
    min_vram = serializers.IntegerField(required=False, min_value=0, max_value=100_000, help_text="GB per GPU")
    max_price = serializers.DecimalField(
        required=False, max_digits=12, decimal_places=6, min_value=0, help_text="Dollars per hour"
    )
    min_gpu_count = serializers.IntegerField(required=False, min_value=0, max_value=10_000)
    gpu_count = serializers.IntegerField(
        required=False, min_value=0, max_value=10_000, help_text="Alias of min_gpu_count"
    )
    min_reliability = FiniteFloatField(required=False, min_value=0, max_value=1)
    min_availability_confidence = FiniteFloatField(required=False, min_value=0, max_value=1)
    min_cuda = FiniteFloatField(required=False, min_value=0, max_value=1000, help_text="CUDA version, e.g. 12.4")
    template_hash_id = serializers.CharField(
        required=False, max_length=64, help_text="Only offers on which this Vast.ai launch template can run"
    )


class QuoteParams(serializers.Serializer[Any]):
    disk_gb = serializers.IntegerField(
        required=False, min_value=8, max_value=16_000, help_text="Adds a quote with that much disk"
    )


class OfferSchema(serializers.Serializer[Any]):
    id = serializers.CharField()
    provider = serializers.CharField()
    provider_id = serializers.CharField()
    gpu_type = serializers.CharField(help_text="Normalised name")
    gpu_count = serializers.IntegerField()
    vram_gb = serializers.IntegerField(help_text="Per GPU, nominal")
    price_per_hour = serializers.FloatField(help_text="Dollars, on demand, whole offer, without disk")
    location = serializers.CharField()
    reliability = serializers.FloatField()
    available = serializers.BooleanField()
    max_duration_hours = serializers.FloatField(help_text="0: no limit known")
    fetched_at = serializers.DateTimeField(help_text="When the provider was asked")
    cuda_version = serializers.FloatField(required=False)
    gpu_vram_total_gb = serializers.IntegerField()
    gpu_name_raw = serializers.CharField(help_text="The vendor's own name")
    compute_capability = serializers.CharField(allow_null=True)
    cpu_cores = serializers.FloatField(allow_null=True)
    ram_gb = serializers.FloatField(allow_null=True)
    disk_gb = serializers.FloatField(allow_null=True)
    storage_price_per_gb_month = serializers.FloatField()
    inet_down_mbps = serializers.FloatField(allow_null=True)
    inet_up_mbps = serializers.FloatField(allow_null=True)
    verified = serializers.BooleanField()
    datacenter = serializers.BooleanField()
    interruptible = serializers.BooleanField(help_text="Bids are taken on it: it can be had interruptible too")
    min_bid_per_hour = serializers.FloatField(allow_null=True, help_text="The least bid, for the whole offer")
    machine_id = serializers.CharField()
    availability_confidence = serializers.FloatField(
        help_text="0 to 1; falls with the listing's age and with failures of the machine and its GPU type"
    )


class QuoteSchema(serializers.Serializer[Any]):
    disk_gb = serializers.IntegerField()
    gpu_per_hour = serializers.FloatField()
    storage_per_hour = serializers.FloatField()
    total_per_hour = serializers.FloatField()
    price_includes = serializers.ListField(
        child=serializers.CharField(), help_text="What total_per_hour pays for: of gpu, vcpu, ram, storage"
    )


class OfferDetailSchema(OfferSchema):
    price_includes = serializers.ListField(
        child=serializers.CharField(),
        help_text="What price_per_hour pays for: of gpu, vcpu and ram; never disk nor traffic (docs/prices.md)",
    )
    quote = QuoteSchema(required=False)


class InventorySchema(serializers.Serializer[Any]):
    offers = OfferSchema(many=True)
    count = serializers.IntegerField(help_text="Offers in this answer")
    total = serializers.IntegerField(help_text="Offers that match")
    filter_error = serializers.CharField(
        required=False, help_text="Why the template's own filters cannot be understood; then it fits no offer"
    )


class MachineHealthSchema(serializers.Serializer[Any]):
    provider = serializers.CharField()
    machine_id = serializers.CharField(help_text="Empty where the vendor names none: then the one in offers")
    offers = serializers.ListField(child=serializers.CharField(), help_text="Listed on this machine now")
    gpu_type = serializers.CharField()
    failures_30_min = serializers.IntegerField(help_text="Within the last 30 minutes")
    failures = serializers.IntegerField(help_text="All that still count: of the last 4 hours")
    last_reason = serializers.CharField(help_text="As a session's end_reason")
    last_failure_at = serializers.DateTimeField()
    confidence_factor = serializers.FloatField(help_text="0 to 1: what the failures leave of its offers' confidence")
    suppressed_until = serializers.DateTimeField(allow_null=True, help_text="Not listed nor sold until then")


class GpuTypeHealthSchema(serializers.Serializer[Any]):
    provider = serializers.CharField()
    gpu_type = serializers.CharField()
    failed = serializers.IntegerField(help_text="Attempts that failed within the last hour")
    attempts = serializers.IntegerField(help_text="Those, and the ones that came to a running machine")
    machines = serializers.IntegerField(help_text="Different machines that failed; under 3 nothing is held against it")
    confidence_factor = serializers.FloatField()


class OfferHealthSchema(serializers.Serializer[Any]):
    machines = MachineHealthSchema(many=True)
    gpu_types = GpuTypeHealthSchema(many=True)
    count = serializers.IntegerField(help_text="Machines in this answer")
    total = serializers.IntegerField(help_text="Machines with failures that still count")


EXAMPLE_HEALTH: dict[str, Any] = {
    "machines": [{
        "provider": "vastai", "machine_id": "28441", "offers": ["vastai-12345"], "gpu_type": "RTX 4090",
        "failures_30_min": 3, "failures": 3, "last_reason": "boot_timeout", "last_failure_at": "2026-01-29T12:00:00Z",
        "confidence_factor": 0.17, "suppressed_until": "2026-01-29T12:30:00Z",
    }],
    "gpu_types": [{
        "provider": "vastai", "gpu_type": "RTX 4090", "failed": 3, "attempts": 20, "machines": 1,
        "confidence_factor": 1.0,
    }],
    "count": 1, "total": 1,
}  # fmt: skip

EXAMPLE_OFFER: dict[str, Any] = {
    "id": "vastai-12345", "provider": "vastai", "provider_id": "12345", "gpu_type": "RTX 4090", "gpu_count": 1,
    "vram_gb": 24, "price_per_hour": 0.45, "location": "Sweden, SE", "reliability": 0.98, "available": True,
    "max_duration_hours": 0, "fetched_at": "2026-01-29T12:00:00Z", "cuda_version": 13.0, "gpu_vram_total_gb": 24,
    "gpu_name_raw": "RTX 4090", "compute_capability": "8.9", "cpu_cores": 16.0, "ram_gb": 63.9, "disk_gb": 412.5,
    "storage_price_per_gb_month": 0.15, "inet_down_mbps": 812.4, "inet_up_mbps": 640.1, "verified": True,
    "datacenter": False, "interruptible": False, "min_bid_per_hour": 0.2, "machine_id": "28441",
    "availability_confidence": 1.0,
}  # fmt: skip
