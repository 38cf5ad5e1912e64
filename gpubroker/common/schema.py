"""Shapes that every operation shares, for the OpenAPI schema."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class ErrorSchema(serializers.Serializer[Any]):
    error = serializers.CharField(help_text="One plain sentence")
    request_id = serializers.CharField(help_text="Also in X-Request-ID and in every log line of the request")
    field = serializers.CharField(required=False, help_text="The field or parameter at fault")
    error_type = serializers.CharField(required=False)
