"""TensorDock (v2 API): the wire (wire, reply), the rows (offers, slices, instances, orders) and the client."""

from providers.tensordock.client import TensorDock
from providers.tensordock.orders import DEFAULT_IMAGE, is_image
from providers.tensordock.wire import PATIENT, Wire

__all__ = ["DEFAULT_IMAGE", "PATIENT", "TensorDock", "Wire", "is_image"]
