"""The API page at /docs, from files that a Python package brings: it works where there is no internet.

The description of the gRPC call lies beside it.
"""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles

PAGE = "/docs"
_ASSETS = "/docs/assets"
PROTO = "/docs/features.proto"
_PROTO_FILE = str(files("serving.rpc") / "features.proto")
_FILES = str(files("fastapi_offline") / "static")


def install(api: FastAPI) -> None:
    """Serve Swagger UI for `api`, which must have been made without FastAPI's own page (`docs_url=None`)."""
    api.mount(_ASSETS, StaticFiles(directory=_FILES), name="api page")

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=str(api.openapi_url),
            title=api.title,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon.png",
        )

    async def proto() -> FileResponse:
        return FileResponse(_PROTO_FILE, media_type="text/plain")

    api.add_api_route(PAGE, page, include_in_schema=False)
    api.add_api_route(PROTO, proto, include_in_schema=False)
