"""Vast.ai: the wire (transport, reply, paging), the rows (offers, instances, orders, account) and the client."""

from providers.vastai.client import VastAI
from providers.vastai.instances import start_failure
from providers.vastai.search import OfferSearch
from providers.vastai.transport import NativeTransport, Transport

__all__ = ["NativeTransport", "OfferSearch", "Transport", "VastAI", "start_failure"]
