"""From a wish to a plan: what a create (or an estimate) would rent. Every refusal is made here, before anything is
written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.conf import settings

from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.money import as_number
from offers import selectors as offers
from offers.models import Offer
from providers.base import Access
from sessions_app import bidding, disk, launch_modes, maintenance
from sessions_app.launch_modes import ENTRYPOINT, SSH
from sessions_app.models import Pricing, RetryScope, Session
from templates_app import selectors as templates
from templates_app.models import Template

DEFAULT_DISK_GB = 50
#: Launch options that a plan works out from the others and the offer.
DERIVED = ("access", "args")


@dataclass(frozen=True, slots=True)
class Wish:
    """A validated create request."""

    consumer_id: str
    offer_id: str
    workload_type: str
    reservation_hours: int
    idle_threshold_minutes: int = 0
    storage_policy: str = "destroy"
    preserve_hours: int | None = None
    launch_mode: str = SSH
    docker_image: str = ""
    template_hash_id: str = ""
    disk_gb: int | None = None
    ssh_public_key: str = ""
    ssh_key_type: str = "rsa"
    launch_options: dict[str, Any] = field(default_factory=dict)
    auto_retry: bool = False
    max_retries: int = 0
    retry_scope: str = RetryScope.SAME_GPU.value
    max_price: Decimal | None = None
    pricing: str = Pricing.ON_DEMAND.value
    #: With interruptible pricing; ``None``: the least that the offer takes.
    bid_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be rented. ``bid_price`` is ``None`` on demand."""

    offer: Offer
    disk_gb: int
    docker_image: str
    launch_options: dict[str, Any]
    disk_estimate: disk.Estimate | None
    bid_price: Decimal | None = None

    @property
    def price_per_hour(self) -> Decimal:
        """What an hour of the GPU costs: the offer's price, or the bid."""
        return self.offer.price_per_hour if self.bid_price is None else self.bid_price


def plan(wish: Wish) -> Plan:
    """Refuses: unknown offer or template (404), what offer, provider or broker cannot do (400), a provider in
    maintenance (503)."""
    offer = offers.one(wish.offer_id)
    if offer is None:
        raise ApiError(404, f"offer {wish.offer_id} not found", offer_id=wish.offer_id)
    maintenance.refuse(offer)
    if wish.reservation_hours > settings.HARD_MAX_HOURS:
        raise BadField("reservation_hours", f"at most {settings.HARD_MAX_HOURS} here, got {wish.reservation_hours}")
    return fit(wish, offer)


def fit(wish: Wish, offer: Offer) -> Plan:
    """The wish on this offer, listed or not. Refuses what offer or provider cannot do (400), and an offer of a provider
    that is not configured any more (503)."""
    configured.get(offer.provider)
    bid = bidding.bid_for(wish.pricing, wish.bid_price, offer, wish.max_price)
    if bid is None and wish.max_price is not None and offer.price_per_hour > wish.max_price:
        raise BadField("max_price", f"this offer costs {as_number(offer.price_per_hour).normalize():f} an hour")
    _refuse_keeping(wish, offer)
    _refuse_image(wish, offer)
    template = _template(wish, offer)
    image, options = _as_entrypoint(wish, offer) if wish.launch_mode == ENTRYPOINT else _with_ssh(wish, template)
    estimate = disk.estimate(options.get("model_id", ""), options.get("quantization", ""))
    return Plan(offer, _disk_gb(wish, offer, template, estimate), image, options, estimate, bid)


def wish_of(session: Session) -> Wish:
    """What was asked for, as far as another offer for the same session has to fit it."""
    options = {name: value for name, value in session.launch_options.items() if name not in DERIVED}
    return Wish(
        consumer_id=session.consumer.name,
        offer_id=session.offer_id,
        workload_type=session.workload_type,
        reservation_hours=session.reservation_hours,
        storage_policy=session.storage_policy,
        preserve_hours=session.preserve_hours,
        launch_mode=session.launch_mode,
        docker_image=session.docker_image,
        template_hash_id=session.template_hash_id,
        disk_gb=session.disk_gb,
        launch_options=options,
        max_price=session.max_price,
        pricing=session.pricing,
        bid_price=session.bid_price,
    )


def _refuse_keeping(wish: Wish, offer: Offer) -> None:
    """A disk is kept only where stopping a machine ends the GPU's bill."""
    if wish.storage_policy == "preserve":
        if not configured.get(offer.provider).capabilities.preserve_disk:
            raise BadField(
                "storage_policy",
                f"{offer.provider} bills a stopped machine in full, so no disk is kept there; use destroy",
            )
    elif wish.preserve_hours is not None:
        raise BadField("preserve_hours", "only with storage_policy preserve")


def _refuse_image(wish: Wish, offer: Offer) -> None:
    can = configured.get(offer.provider).capabilities
    if wish.docker_image and can.own_images and not re.fullmatch(can.own_images, wish.docker_image):
        raise BadField("docker_image", f"{offer.provider} runs no Docker images, only its own, such as ubuntu2404")


def _template(wish: Wish, offer: Offer) -> Template | None:
    if not wish.template_hash_id:
        return None
    template = templates.one(wish.template_hash_id)
    if template is None:
        hash_id = wish.template_hash_id
        raise ApiError(404, f"template {hash_id} not found", template_hash_id=hash_id, field="template_hash_id")
    if template.provider != offer.provider:
        raise BadField("template_hash_id", f"this template is {template.provider}'s, the offer is {offer.provider}'s")
    if wish.launch_mode == ENTRYPOINT:
        raise BadField(
            "template_hash_id", "a template is always launched with SSH; use launch_mode ssh, or no template"
        )
    return template


def _with_ssh(wish: Wish, template: Template | None) -> tuple[str, dict[str, Any]]:
    options = dict(wish.launch_options)
    if template is not None and not _brings_ssh(template):
        # "SSH access is always enabled": what the request names wins over the template.
        options["access"] = Access.SSH.value
    return launch_modes.with_tag(wish.docker_image), options


def _brings_ssh(template: Template) -> bool:
    return template.raw.get("runtype") in ("ssh", "jupyter") and template.raw.get("use_ssh") is not False


def _as_entrypoint(wish: Wish, offer: Offer) -> tuple[str, dict[str, Any]]:
    """Image, arguments and ports of a machine without SSH."""
    if not configured.get(offer.provider).capabilities.entrypoint:
        raise BadField("launch_mode", f"{offer.provider} cannot run an image by its entrypoint; use ssh")
    if offer.raw.get("direct_port_count") == 0:
        raise BadField("launch_mode", "this offer's machine publishes no ports, so nothing could reach it; use ssh")
    options = dict(wish.launch_options)
    if options.get("on_start_cmd"):
        raise BadField("on_start_cmd", "is run by the SSH launch; with entrypoint the image runs its own")
    model_id = options.get("model_id", "")
    server = launch_modes.server_for(wish.workload_type, model_id)
    image = wish.docker_image or (server.image if server else "")
    if not image:
        raise BadField(
            "docker_image", "needed with entrypoint, unless workload_type is llm_vllm or llm_tgi with model_id"
        )
    ports = options.get("exposed_ports") or [server.port if server else launch_modes.USUAL_PORT]
    options |= {"exposed_ports": ports, "access": Access.ENTRYPOINT.value}
    if server is not None:
        options["args"] = server.arguments(model_id, options.get("quantization", ""), offer.gpu_count, ports[0])
    return launch_modes.with_tag(image), options


def _disk_gb(wish: Wish, offer: Offer, template: Template | None, estimate: disk.Estimate | None) -> int:
    """As asked for if it can be had and is enough; else the default, or what template and model need if more."""
    most = int(offer.disk_gb) if offer.disk_gb is not None else None
    least = configured.get(offer.provider).capabilities.least_disk_gb
    if wish.disk_gb is not None:
        if wish.disk_gb < least:
            raise BadField("disk_gb", f"at least {least} GB with {offer.provider}, got {wish.disk_gb}")
        if most is not None and wish.disk_gb > most:
            raise BadField("disk_gb", f"this offer has at most {most} GB, got {wish.disk_gb}")
        if estimate is not None and wish.disk_gb < estimate.required_gb:
            raise _insufficient(wish, estimate, wish.disk_gb, most)
        return wish.disk_gb
    wanted = max(DEFAULT_DISK_GB, least, _recommended(template))
    needed = estimate.required_gb if estimate is not None else 0
    if most is None:
        return max(wanted, needed)
    if needed > most:
        raise _insufficient(wish, estimate, None, most)
    return min(max(wanted, needed), most)


def _recommended(template: Template | None) -> int:
    value = template.raw.get("recommended_disk_space") if template is not None else None
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 16_000
    return math.ceil(value) if usable and value is not None else 0


def _insufficient(wish: Wish, estimate: disk.Estimate | None, requested: int | None, most: int | None) -> ApiError:
    assert estimate is not None
    shown = estimate.shown()
    model, needed = wish.launch_options["model_id"], estimate.required_gb
    what = f"{requested} GB were asked for" if requested is not None else f"this offer has {most} GB"
    return ApiError(
        400, f"disk_gb: {model} needs about {needed} GB, {what}",
        error_type="insufficient_disk", field="disk_gb", model_id=model, offer_id=wish.offer_id,
        **shown, requested_gb=requested, available_gb=most,
    )  # fmt: skip
