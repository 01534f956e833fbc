"""Facts about an engine and about one index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridsearch.adapters.lucene.dialect import Server
from hybridsearch.adapters.lucene.wire.channel import Call, Channel
from hybridsearch.adapters.lucene.wire.connection import Json
from hybridsearch.adapters.lucene.wire.refusals import decode


def ask_nodes(channel: Channel) -> Server:
    """The version, the plugins and the modules of the nodes."""
    answer = _asked(channel, "/_nodes/plugins?filter_path=nodes.*.version,nodes.*.plugins.name,nodes.*.modules.name")
    nodes = [] if answer is None else list(answer.get("nodes", {}).values())
    versions = [tuple(int(n) for n in node["version"].split("-")[0].split(".")) for node in nodes]
    plugins, modules = (
        [frozenset(one["name"] for one in node.get(kind, [])) for node in nodes] or [frozenset[str]()]
        for kind in ("plugins", "modules")
    )
    return Server(min(versions, default=None), frozenset.intersection(*plugins), frozenset.intersection(*modules))


def describe_server(channel: Channel) -> dict[str, Any]:
    """The name, the status and the size of the cluster. Empty if the user has no permission to read them."""
    health = _asked(channel, "/_cluster/health")
    if health is None:
        return {}
    return {"cluster": health["cluster_name"], "status": health["status"], "nodes": health["number_of_nodes"]}


def describe_index(channel: Channel, documents: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The name, aliases, size (`bytes` of primaries and replicas) and vector options of the index."""
    path = channel.address.path
    ((name, index),) = channel.call("GET", path).items()
    settings = index["settings"]["index"]
    stored = _asked(channel, f"{path}/_stats/store")
    return {
        "index": name,
        "aliases": sorted(index["aliases"]),
        "documents": documents,
        **({} if stored is None else {"bytes": stored["_all"]["total"]["store"]["size_in_bytes"]}),
        "shards": int(settings["number_of_shards"]),
        "replicas": int(settings["number_of_replicas"]),
        "options": dict(options),
    }


def _asked(channel: Channel, path: str) -> Json | None:
    """The answer, or None if the user has no permission to ask."""
    answer = channel.answer(Call("GET", path))
    return None if answer[0] == 403 else decode(channel.address, answer)
