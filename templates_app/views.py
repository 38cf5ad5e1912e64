"""GET /api/v1/templates and one template."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common.api import read_query
from gpubroker.common.errors import ApiError
from gpubroker.common.schema import errors, example
from templates_app import selectors
from templates_app.serializers import EXAMPLE_TEMPLATE, TemplateListSchema, TemplateParams, TemplateSchema


class TemplatesView(APIView):
    @extend_schema(
        operation_id="list_templates", tags=["templates"], summary="Launch templates", parameters=[TemplateParams],
        responses={200: TemplateListSchema, **errors(400)},
        examples=[example({"templates": [EXAMPLE_TEMPLATE], "count": 1})],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """Vast.ai's launch templates, by name: image, environment and start command for a kind of work."""
        templates = selectors.matching(read_query(TemplateParams, request.query_params).get("name"))
        return Response({"templates": [selectors.shown(item) for item in templates], "count": len(templates)})


class TemplateView(APIView):
    @extend_schema(
        operation_id="get_template", tags=["templates"], summary="One launch template",
        responses={200: TemplateSchema, **errors(404, _404="template a8a44c7363cbca20056020397e3bf072 not found")},
        examples=[example(EXAMPLE_TEMPLATE)],
    )  # fmt: skip
    def get(self, request: Request, hash_id: str) -> Response:
        """One template by the hash of its content, which changes with every edit at Vast.ai."""
        template = selectors.one(hash_id)
        if template is None:
            raise ApiError(404, f"template {hash_id} not found", hash_id=hash_id)
        return Response(selectors.shown(template))
