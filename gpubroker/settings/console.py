"""How the console looks (django-unfold's settings); what stands in its sidebar is gpubroker/console/navigation.py."""

from __future__ import annotations

from typing import Any

_STATIC = "/static/console/"

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "GPU Broker",
    "SITE_HEADER": "GPU Broker",
    "SITE_SUBHEADER": "what runs, what it costs, what is owed",
    "SITE_SYMBOL": "memory",
    "SITE_URL": "/api/docs",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": f"{_STATIC}favicon.svg"}],
    # The audit log shows it, of all pages.
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "BORDER_RADIUS": "8px",
    # Light or dark is each person's own choice: neither is forced.
    "DASHBOARD_CALLBACK": "gpubroker.console.start.context",
    "STYLES": [f"{_STATIC}console.css"],
    "SCRIPTS": [f"{_STATIC}console.js"],
    "COLORS": {
        "base": {
            "50": "oklch(98.4% .003 247.858)",
            "100": "oklch(96.8% .007 247.896)",
            "200": "oklch(92.9% .013 255.508)",
            "300": "oklch(86.9% .022 252.894)",
            "400": "oklch(70.4% .04 256.788)",
            "500": "oklch(55.4% .046 257.417)",
            "600": "oklch(44.6% .043 257.281)",
            "700": "oklch(37.2% .044 257.287)",
            "800": "oklch(27.9% .041 260.031)",
            "900": "oklch(20.8% .042 265.755)",
            "950": "oklch(12.9% .042 264.695)",
        },
        "primary": {
            "50": "oklch(97.7% .013 236.62)",
            "100": "oklch(95.1% .026 236.824)",
            "200": "oklch(90.1% .058 230.902)",
            "300": "oklch(82.8% .111 230.318)",
            "400": "oklch(74.6% .16 232.661)",
            "500": "oklch(68.5% .169 237.323)",
            "600": "oklch(52% .14 241.966)",
            "700": "oklch(50% .134 242.749)",
            "800": "oklch(44.3% .11 240.79)",
            "900": "oklch(39.1% .09 240.876)",
            "950": "oklch(29.3% .066 243.157)",
        },
    },
    "SIDEBAR": {
        "show_search": True,
        "navigation": "gpubroker.console.navigation.sidebar",
    },
}
