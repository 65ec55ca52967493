"""The device to compute on, from what the user said; torch is imported only when it is asked."""

from __future__ import annotations

from pathlib import Path

from tunescope import processes
from tunescope.errors import RunError


def resolve_device(wanted: str = "auto") -> str:
    """Return the device that ``wanted`` means on this machine: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    ``auto`` is the first graphics processor where there is one.

    Raises:
        RunError: The device is not there, or its name is not known.
        ConfigError: Several processes share this run, and the device is no processor.
    """
    device = _there(wanted)
    processes.refuse_device(device)
    return device


def _there(wanted: str) -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if wanted == "auto":
        return "cuda" if count else ("mps" if has_mps else "cpu")
    kind, _, index = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in wanted and not (kind == "cuda" and index.isdigit())):
        raise RunError(
            f"Expected the device auto, cpu, cuda, cuda:N or mps; came {wanted!r}.", hint="Try --device auto."
        )
    if (kind == "cuda" and int(index or 0) >= count) or (kind == "mps" and not has_mps):
        found = ", ".join(["cpu", *(f"cuda:{n}" for n in range(count)), *(["mps"] if has_mps else [])])
        raise RunError(
            f"The device {wanted} is not there; found: {found}.", hint="Use --device auto or --device cpu."
        )
    return wanted


def bfloat16_is_fast(device: str) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware.

    That is a CUDA device of capability 8.0 or later, and a processor with AVX512-BF16 or AMX-BF16 (Arm: BF16).
    Elsewhere bfloat16 is worked out in float32, and slower than it.
    """
    kind, _, index = str(device).partition(":")
    if kind == "cuda":
        import torch

        return torch.cuda.is_available() and torch.cuda.get_device_capability(int(index or 0)) >= (8, 0)
    return kind == "cpu" and not _processor_flags().isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _processor_flags() -> set[str]:
    """Return what Linux says that the processor can do; elsewhere nothing is known, and nothing is promised."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return next(
        (set(value.split()) for name, _, value in lines if name.strip() in ("flags", "Features")), set()
    )


def free_memory(device: str) -> float | None:
    """Return the bytes that a device can still give, or None where the system does not say.

    On a processor under Linux that is what the system calls available, and no more than what is left of the limit
    of the process's control group.
    """
    if str(device).startswith("cuda"):
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    if not str(device).startswith("cpu"):
        return None
    known = [_available(Path("/proc/meminfo")), _left_of_group(Path("/sys/fs/cgroup"))]
    return min((one for one in known if one is not None), default=None)


def _available(path: Path) -> float | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * int(found[0]) if found else None


def _left_of_group(folder: Path) -> float | None:
    """Return what a control group may still take: its limit less what it uses, pages of files not counted."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(
            line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        )
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return float(max(0, int(limit) - used + int(stat.get("inactive_file", 0))))
