"""An embedded Qdrant behind the HTTP interface of a server, for tests of clients of a server.

    with QdrantServer() as server:
        QdrantBackend(f"qdrant://{server.host}/name")

Searches are exact. `asked` has the method and path of every request.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic_core import to_jsonable_python
from qdrant_client import QdrantClient, models


class QdrantServer:
    """A server on a free port of the loopback interface."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.client = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self._lock = threading.Lock()

    def __enter__(self) -> QdrantServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, answer = server._answer(self.command, urlsplit(self.path).path, json.loads(body or "null"))
                content = json.dumps(to_jsonable_python(answer)).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Print no log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.client.close()

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append((method, path))
        try:
            with self._lock:
                result = self._result(method, [unquote(part) for part in path.split("/")[1:]], body)
        except ValueError as error:
            missing = str(error).startswith("Collection")
            return 404 if missing else 400, {"status": {"error": f"Wrong input: {error}"}, "time": 0.0}
        return 200, result if path == "/" else {"result": result, "status": "ok", "time": 0.0}

    def _result(self, method: str, path: list[str], body: Any) -> Any:
        client = self.client
        match (method, *path):
            case ("GET", ""):
                return {"title": "qdrant", "version": "1.20.0"}
            case ("GET", "collections"):
                return client.get_collections()
            case ("GET", "aliases"):
                return client.get_aliases()
            case ("POST", "collections", "aliases"):
                actions = models.ChangeAliasesOperation.model_validate(body).actions
                return client.update_collection_aliases(actions)
            case ("GET", "collections", name):
                return client.get_collection(name)
            case ("GET", "collections", name, "exists"):
                return {"exists": client.collection_exists(name)}
            case ("PUT", "collections", name):
                create: Any = models.CreateCollection.model_validate(body)
                given = {"sparse_vectors_config": create.sparse_vectors, "metadata": create.metadata}
                return client.create_collection(name, create.vectors, **given)
            case ("PATCH", "collections", name):
                return client.update_collection(name, metadata=body["metadata"])
            case ("DELETE", "collections", name):
                return client.delete_collection(name)
            case ("PUT", "collections", name, "index"):
                return {"operation_id": 0, "status": "completed"}
            case ("PUT", "collections", name, "points"):
                mode = models.UpdateMode(body["update_mode"]) if body.get("update_mode") else None
                points = models.PointsList.model_validate(body).points
                return client.upsert(name, points, update_mode=mode)
            case ("POST", "collections", name, "points"):
                return client.retrieve(
                    name, body["ids"], body.get("with_payload", True), body.get("with_vector", False)
                )
            case ("POST", "collections", name, "points", "delete"):
                return client.delete(name, models.PointIdsList.model_validate(body))
            case ("POST", "collections", name, "points", "count"):
                return client.count(name, models.CountRequest.model_validate(body).filter)
            case ("POST", "collections", name, "points", "scroll"):
                asked = models.ScrollRequest.model_validate(body)
                points, following = client.scroll(
                    name, asked.filter, asked.limit or 10, None, asked.offset, asked.with_payload, asked.with_vector
                )
                return {"points": points, "next_page_offset": following}
            case ("POST", "collections", name, "points", "query", "batch"):
                searches = models.QueryRequestBatch.model_validate(body).searches
                return client.query_batch_points(name, searches)
        raise AssertionError(f"This imitation does not know {method} {'/'.join(path)}.")
