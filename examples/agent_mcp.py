"""An agent that answers from an index, by the tools of `hybridsearch mcp`. It needs no model.

Run it: `pip install 'hybridsearch[mcp]'`, then `python examples/agent_mcp.py`

The loop is the one of every agent: the model gets the messages and the tools, and asks for a tool or answers. Only the
model is a stub here: `stub_model` has the place of your language model.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

import hybridsearch as hs

DOCUMENTS = [
    {"id": "alder-2021", "title": "Alder, 2021", "text": "A full charge takes seven hours.", "year": 2021},
    {"id": "alder-2024", "title": "Alder, 2024", "text": "A full charge takes five hours.", "year": 2024},
    {"id": "birch-2024", "title": "Birch, 2024", "text": "Pump the tyres once a month.", "year": 2024},
]


def stub_model(messages: list[dict[str, Any]], tools: list[Any]) -> dict[str, Any]:
    """What a language model would say: it searches with a filter, reads the best result, and answers."""
    answers = [json.loads(message["content"]) for message in messages if message["role"] == "tool"]
    if not answers:
        described = next(tool.description for tool in tools if tool.name == "search")
        recent = {"year": {"$gte": 2024}} if "- year: number" in described else None
        return {"tool": "search", "arguments": {"query": messages[0]["content"], "filter": recent}}
    if len(answers) == 1:
        return {"tool": "fetch", "arguments": {"id": answers[0]["results"][0]["id"]}}
    return {"answer": f"{answers[1]['text']} Source: {answers[1]['title']}, {answers[1]['url']}"}


async def run_agent(question: str, server: StdioServerParameters) -> str:
    messages = [{"role": "user", "content": question}]
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
        for _ in range(10):  # an agent needs an end
            said = stub_model(messages, tools)
            if "answer" in said:
                return str(said["answer"])
            print(f"{said['tool']}({json.dumps(said['arguments'])})")
            result = await client.call_tool(said["tool"], said["arguments"])
            messages.append({"role": "tool", "content": result.content[0].text})
    raise RuntimeError("The model did not come to an answer.")


with tempfile.TemporaryDirectory() as folder:
    place = str(Path(folder) / "manuals")
    with hs.HybridSearch({"bm25": hs.BM25()}, place) as search:
        search.index(DOCUMENTS)
    program = StdioServerParameters(command=sys.executable, args=["-m", "hybridsearch", "mcp", place])
    print(asyncio.run(run_agent("How long does a full charge of the Alder take?", program)))
