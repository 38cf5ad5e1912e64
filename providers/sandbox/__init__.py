"""The sandbox marketplace: a test mode that broker code cannot tell from the real service but by base URL.

A process of its own (``python -m providers.sandbox``). The core (ledger, market, instances, billing,
SSH servers, faults) knows no vendor; each vendor's wire is a face onto it, e.g. ``providers.sandbox.vast``.
Nothing in the broker imports this package; it speaks to it over HTTP and SSH only.
"""
