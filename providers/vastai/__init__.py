"""Vast.ai: the wire (transport, lowcodeapi, reply, paging), the rows (offers, instances, orders) and the client."""

from providers.vastai.caller import Part
from providers.vastai.client import AnyVastAI, VastAI, VastAIByGateway
from providers.vastai.instances import start_failure
from providers.vastai.lowcodeapi import LowCodeAPITransport
from providers.vastai.search import OfferSearch
from providers.vastai.transport import NativeTransport, Transport

__all__ = [
    "AnyVastAI",
    "LowCodeAPITransport",
    "NativeTransport",
    "OfferSearch",
    "Part",
    "Transport",
    "VastAI",
    "VastAIByGateway",
    "start_failure",
]
