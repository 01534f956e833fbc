"""What an engine says of itself and of one index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridsearch.adapters.lucene.dialect import Server
from hybridsearch.adapters.lucene.wire.channel import Call, Channel
from hybridsearch.adapters.lucene.wire.connection import Json
from hybridsearch.adapters.lucene.wire.refusals import decode


def ask_nodes(channel: Channel) -> Server:
    """What the nodes have."""
    answer = _asked(channel, "/_nodes/plugins?filter_path=nodes.*.version,nodes.*.plugins.name,nodes.*.modules.name")
    nodes = [] if answer is None else list(answer.get("nodes", {}).values())
    versions = [tuple(int(n) for n in node["version"].split("-")[0].split(".")) for node in nodes]
    plugins = [frozenset(plugin["name"] for plugin in node.get("plugins", [])) for node in nodes]
    return Server(min(versions, default=None), frozenset.intersection(*plugins) if plugins else frozenset())


def describe_server(channel: Channel) -> dict[str, Any]:
    """Its cluster's name, status and size; nothing where whoever asks may not know."""
    health = _asked(channel, "/_cluster/health")
    if health is None:
        return {}
    return {"cluster": health["cluster_name"], "status": health["status"], "nodes": health["number_of_nodes"]}


def describe_index(channel: Channel, documents: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Its name and aliases, its size (`bytes` of primaries and replicas), and how it stores vectors."""
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
    """The answer; None for those who may not ask."""
    answer = channel.answer(Call("GET", path))
    return None if answer[0] == 403 else decode(channel.address, answer)
