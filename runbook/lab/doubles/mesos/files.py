"""`/files/browse`, `/files/read`, `/files/download` and `/files/debug`, over the files that a daemon attaches."""

import stat
from grp import getgrgid
from pathlib import Path
from pwd import getpwuid

from .http import Handler, Request, Response, Server, ok, text

PAGE = 16 * 4096  # bytes of one read, at most


class Files:
    """Virtual paths, such as `/slave/log`, and the files or folders behind them."""

    def __init__(self, server: Server) -> None:
        self.attached: dict[str, Path] = {}
        for name in ("browse", "read", "download", "debug"):
            handler: Handler = getattr(self, f"_{name}")
            server.route(handler, f"/files/{name}")

    def _debug(self, request: Request) -> Response:
        return ok({name: str(path) for name, path in sorted(self.attached.items())})

    def _browse(self, request: Request) -> Response:
        found = self._find(request)
        if isinstance(found, Response):
            return found
        if not found.is_dir():
            return ok([])
        shown = request.query["path"].rstrip("/")
        return ok([_describe(entry, f"{shown}/{entry.name}") for entry in sorted(found.iterdir()) if entry.exists()])

    def _read(self, request: Request) -> Response:
        numbers = {}
        for name in ("offset", "length"):
            value = request.query.get(name, "-1")
            if not value.lstrip("-").isdigit():
                return text(400, f"Failed to parse {name}: Failed to convert '{value}' to number.\n")
            numbers[name] = int(value)
            if numbers[name] < -1:
                return text(400, f"Negative {name} provided: {value}.\n")
        found = self._find(request)
        if isinstance(found, Response):
            return found
        if found.is_dir():
            return text(400, "Cannot read from a directory.\n")
        size = found.stat().st_size
        if numbers["offset"] == -1:
            return ok({"data": "", "offset": size})
        with found.open("rb") as file:
            file.seek(numbers["offset"])
            data = file.read(PAGE if numbers["length"] == -1 else min(PAGE, numbers["length"]))
        return ok({"data": data.decode(errors="replace"), "offset": numbers["offset"]})

    def _download(self, request: Request) -> Response:
        found = self._find(request)
        if isinstance(found, Response):
            return found
        if found.is_dir():
            return text(400, "Cannot download a directory.\n")
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename={found.name}",
        }
        return Response(200, found.read_bytes(), headers)

    def _find(self, request: Request) -> Path | Response:
        path = request.query.get("path", "").rstrip("/")
        if not path:
            return text(400, "Expecting 'path=value' in query.\n")
        for name, target in self.attached.items():
            if path == name or path.startswith(f"{name}/"):
                found = Path(f"{target}{path.removeprefix(name)}").resolve()
                root = target.resolve()
                if found.exists() and (found == root or root in found.parents):
                    return found
        return Response(404)


def _describe(entry: Path, shown: str) -> dict[str, object]:
    facts = entry.stat()
    return {
        "gid": getgrgid(facts.st_gid).gr_name,
        "mode": stat.filemode(facts.st_mode),
        "mtime": int(facts.st_mtime),
        "nlink": facts.st_nlink,
        "path": shown,
        "size": facts.st_size,
        "uid": getpwuid(facts.st_uid).pw_name,
    }
