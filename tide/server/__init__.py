"""The reference server (extra ``server``): `create_app`, and the command `tide serve`."""

try:
    from tide.server.app import create_app
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn"):
        raise
    raise ImportError(
        "tide.server needs Starlette and uvicorn, which are not installed; in your checkout of "
        "tide, run: pip install -e '.[server]'",
        name=error.name,
    ) from error
from tide.server.access import Access, Write
from tide.server.auth import bearer
from tide.server.service import Service

__all__ = ["Access", "Service", "Write", "bearer", "create_app"]
