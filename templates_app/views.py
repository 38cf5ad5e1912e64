"""GET /api/v1/templates and one template."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common.api import read_query
from gpubroker.common.errors import ApiError
from gpubroker.common.schema import ErrorSchema
from templates_app import selectors
from templates_app.serializers import TemplateListSchema, TemplateParams, TemplateSchema


class TemplatesView(APIView):
    @extend_schema(
        operation_id="list_templates", tags=["templates"], parameters=[TemplateParams],
        responses={200: TemplateListSchema, 400: ErrorSchema},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """Launch templates: image, environment and start command for a kind of work."""
        templates = selectors.matching(read_query(TemplateParams, request.query_params).get("name"))
        return Response({"templates": [selectors.shown(item) for item in templates], "count": len(templates)})


class TemplateView(APIView):
    @extend_schema(operation_id="get_template", tags=["templates"], responses={200: TemplateSchema, 404: ErrorSchema})
    def get(self, request: Request, hash_id: str) -> Response:
        """One template."""
        template = selectors.one(hash_id)
        if template is None:
            raise ApiError(404, f"template {hash_id} not found", hash_id=hash_id)
        return Response(selectors.shown(template))
