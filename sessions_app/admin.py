"""What this app shows in the console; each module is one family of pages."""

from __future__ import annotations

from sessions_app import provider_admin as provider_admin
from sessions_app import record_admin as record_admin
from sessions_app import rental_admin as rental_admin
from sessions_app import session_admin as session_admin
