"""The machine that costs are measured on: without it a millisecond says little."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def machine_facts() -> dict[str, str]:
    """CPU, cores that this process may use, memory, operating system, Python; where torch is in use, how it computes.

    >>> {"CPU", "cores", "memory", "OS", "Python"} <= machine_facts().keys()
    True
    """
    facts = {
        "CPU": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "OS": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch"] = f"{torch.__version__} ({torch.get_num_threads()} threads)"
        facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return facts


def _processor() -> str:
    """The model's name, which Python knows only on some systems."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return "unknown"
    return f"{total / 2**30:.0f} GiB"
