"""What the OpenAPI schema says of sessions beside the shapes: examples."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework import serializers

from gpubroker.common.schema import ERRORS, error_example

SESSION_ID = "sess-abc234defghijk67"


def refused(
    status: int, shape: type[serializers.Serializer[Any]], sentence: str, **more: Any
) -> dict[int, OpenApiResponse]:
    """An error that says more than the common shape, with an example."""
    example = OpenApiExample(
        f"{status}", value=error_example(status, sentence, **more), response_only=True, status_codes=[str(status)]
    )
    return {status: OpenApiResponse(shape, ERRORS[status][0], [example])}


SESSION: dict[str, Any] = {
    "id": SESSION_ID, "consumer_id": "my-application", "provider": "vastai", "offer_id": "vastai-12345",
    "gpu_type": "RTX 4090", "gpu_count": 1, "status": "provisioning", "ssh_host": "", "ssh_port": 0,
    "ssh_user": "root", "workload_type": "llm", "launch_mode": "ssh", "storage_policy": "destroy",
    "idle_threshold_minutes": 30, "reservation_hours": 2, "price_per_hour": 0.45, "disk_gb": 100,
    "created_at": "2026-01-29T12:00:00Z", "expires_at": "2026-01-29T14:00:00Z", "end_reason": "",
    "end_message": "", "ended_at": None, "auto_retry": False, "max_retries": 0, "retry_scope": "same_gpu",
    "max_price": None, "pricing": "on_demand", "bid_price": None, "paused": False, "paused_at": None,
}  # fmt: skip
RUNNING: dict[str, Any] = {**SESSION, "status": "running", "ssh_host": "192.168.1.100", "ssh_port": 22}
CREATE: dict[str, Any] = {
    "consumer_id": "my-application", "offer_id": "vastai-12345", "workload_type": "llm", "reservation_hours": 2,
    "idle_threshold_minutes": 30, "storage_policy": "destroy", "disk_gb": 100,
}  # fmt: skip
CREATE_VLLM: dict[str, Any] = {
    "consumer_id": "my-application", "offer_id": "vastai-12345", "workload_type": "llm_vllm", "reservation_hours": 2,
    "launch_mode": "entrypoint", "model_id": "Qwen/Qwen2.5-7B-Instruct", "exposed_ports": [8000],
}  # fmt: skip
STALE: dict[str, Any] = {
    "error_type": "stale_inventory", "offer_id": "vastai-12345", "provider": "vastai", "retry_suggested": True,
    "message": "The selected offer is no longer available. Please refresh inventory and select a different offer.",
    "session_id": SESSION_ID,
}  # fmt: skip
DISK_ESTIMATE: dict[str, Any] = {
    "weights_gb": 118, "image_gb": 8, "overhead_gb": 5.9, "required_gb": 132,
    "computed_as": "236 billion parameters x 0.5 bytes (4-bit) = 118 GB of weights, "
    "and room for the image and 5 % more (at least 2 GB)",
}  # fmt: skip
INSUFFICIENT: dict[str, Any] = {
    "error_type": "insufficient_disk", "field": "disk_gb", "model_id": "deepseek-ai/DeepSeek-V2.5",
    "offer_id": "vastai-12345", **DISK_ESTIMATE, "requested_gb": 100, "available_gb": 500,
}  # fmt: skip
ESTIMATE: dict[str, Any] = {
    "consumer_id": "my-application", "offer_id": "vastai-12345", "provider": "vastai", "gpu_type": "RTX 4090",
    "gpu_count": 1, "reservation_hours": 2, "disk_gb": 100, "pricing": "on_demand",
    "bid_price": None, "currency": "USD",
    "per_hour": {"gpu": 0.45, "disk": 0.02, "total": 0.47}, "total": {"gpu": 0.9, "disk": 0.04, "total": 0.94},
    "disk_estimate": None,
    "budget": {"mode": "hard", "needed": 1.028125, "monthly_left": 257.25, "total_left": None, "fits": True},
}  # fmt: skip
DIAGNOSTICS: dict[str, Any] = {
    "session_id": SESSION_ID, "status": "running", "provider": "vastai", "gpu_type": "RTX 4090", "gpu_count": 1,
    "ssh_host": "192.168.1.100", "ssh_port": 22, "ssh_user": "root", "launch_mode": "ssh", "api_endpoint": "",
    "created_at": "2026-01-29T12:00:00Z", "expires_at": "2026-01-29T14:00:00Z", "uptime": "1h 30m",
    "uptime_seconds": 5400, "time_to_expiry": "30m", "time_to_expiry_seconds": 1800, "ssh_available": True,
    "host_key": "SHA256:kPZ8nXb0cJXn3hRkq1nP0tqkq0m6bQe5v9o1q0b6J9E",
    "note": "Full SSH diagnostics require client-side SSH access.", "ssh_checked_at": "2026-01-29T13:29:10Z",
}  # fmt: skip
EVENTS: dict[str, Any] = {
    "session_id": SESSION_ID, "count": 1, "total": 1,
    "events": [
        {"at": "2026-01-29T12:01:10Z", "kind": "session", "from": "provisioning", "to": "running",
         "reason": "SSH verified", "actor": "broker",
         "details": {"ssh": "root@192.168.1.100:22", "gpus": ["NVIDIA GeForce RTX 4090, 24564"]}},
    ],
}  # fmt: skip
SAMPLES: dict[str, Any] = {
    "session_id": SESSION_ID, "idle_threshold_minutes": 30, "idle_since": "2026-01-29T12:40:10Z", "warned_at": None,
    "warns_at": "2026-01-29T13:10:10Z", "ends_at": "2026-01-29T13:15:10Z", "count": 1, "total": 1,
    "samples": [
        {"at": "2026-01-29T12:40:10Z", "source": "probe", "gpu_utilization": 0, "memory_used_mb": 1,
         "ssh_connections": 0, "idle": True, "note": ""},
    ],
}  # fmt: skip
ATTEMPTS: dict[str, Any] = {
    "session_id": SESSION_ID, "count": 2, "retries_left": 0,
    "attempts": [
        {"attempt": 1, "offer_id": "vastai-12345", "provider": "vastai", "gpu_type": "RTX 4090", "machine_id": "28441",
         "price_asked": 0.45, "price_actual": 0.45, "phase": "boot", "state": "closed",
         "error": {"reason": "boot_failed", "message": "OCI runtime create failed", "at": "2026-01-29T12:01:10Z"},
         "started_at": "2026-01-29T12:00:00Z", "ended_at": "2026-01-29T12:01:14Z", "seconds": 74.1},
        {"attempt": 2, "offer_id": "vastai-67890", "provider": "vastai", "gpu_type": "RTX 4090", "machine_id": "19027",
         "price_asked": 0.47, "price_actual": 0.47, "phase": "run", "state": "live", "error": None,
         "started_at": "2026-01-29T12:01:14Z", "ended_at": None, "seconds": 1726.4},
    ],
}  # fmt: skip
COSTS: dict[str, Any] = {
    "consumer_id": "my-application", "total_cost": 45.67, "session_count": 12, "hours_used": 98.5,
    "by_provider": {"vastai": 45.67}, "by_gpu_type": {"RTX 4090": 25.0, "A100": 20.67},
}  # fmt: skip
COST_OF_SESSION: dict[str, Any] = {
    "session_id": SESSION_ID, "total_cost": 1.35, "currency": "USD", "gpu_cost": 1.3, "storage_cost": 0.05,
    "bandwidth_cost": 0, "failed_attempts_cost": 0.01, "preserved_disk_cost": 0, "hours_used": 2.9,
}  # fmt: skip
COST_GROUPS: dict[str, Any] = {
    "consumer_id": "my-application", "group_by": "day", "start_date": "2026-01-28", "end_date": "2026-01-29",
    "total_cost": 2.09, "hours_used": 4.4, "count": 2, "total": 2, "next": None,
    "groups": [
        {"day": "2026-01-28", "total_cost": 0.74, "gpu_cost": 0.7, "storage_cost": 0.04, "bandwidth_cost": 0,
         "failed_attempts_cost": 0, "preserved_disk_cost": 0, "hours_used": 1.5},
        {"day": "2026-01-29", "total_cost": 1.35, "gpu_cost": 1.3, "storage_cost": 0.05, "bandwidth_cost": 0,
         "failed_attempts_cost": 0.01, "preserved_disk_cost": 0, "hours_used": 2.9},
    ],
}  # fmt: skip
COSTS_CSV = (
    "day,total_cost,gpu_cost,storage_cost,bandwidth_cost,failed_attempts_cost,preserved_disk_cost,hours_used\r\n"
    "2026-01-29,1.35,1.3,0.05,0,0.01,0,2.9\r\n"
)
