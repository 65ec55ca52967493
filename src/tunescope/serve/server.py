"""Listening on loopback until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunescope.device import resolve_device
from tunescope.errors import MissingDependencyError, RunError

LOOPBACK = "127.0.0.1"
PORT = 8321


@dataclass(frozen=True)
class ServeOptions:
    """How runs are served.

    Attributes:
        port: Where to listen on loopback; 0 for any free port.
        device: Where models compute.
        memory_gb: What the parameters of open models may take.
        open_browser: Show the page in the machine's browser.
    """

    port: int = PORT
    device: str = "auto"
    memory_gb: float = 4.0
    open_browser: bool = False


def serve(paths: Sequence[Path], options: ServeOptions = ServeOptions()) -> bool:
    """Serve run folders until Ctrl-C; prints the address with its token.

    Returns:
        Whether all work has ended; False where a model is still being loaded.

    Raises:
        RunError: A folder is not a run, or the port is in use.
        MissingDependencyError: starlette or uvicorn is not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError(
            f"`tunescope serve` needs {error.name}, which is not installed.",
            hint="pip install 'tunescope[serve]'",
        ) from error
    from tunescope.models.source import quiet_transformers
    from tunescope.serve.app import make_app, make_site
    from tunescope.serve.runs import find_runs

    runs = find_runs(paths)
    listener = listening(options.port)
    port, token = int(listener.getsockname()[1]), secrets.token_urlsafe(24)
    site = make_site(runs, resolve_device(options.device), options.memory_gb * 1e9)
    config = uvicorn.Config(
        make_app(site, token, port), log_level="warning", access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    address = f"http://{LOOPBACK}:{port}/?token={token}"
    print(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}: {address}", flush=True)
    print("Only this machine can open it. Ctrl-C ends it.", flush=True)
    if options.open_browser:
        import webbrowser

        webbrowser.open(address)
    try:
        # KeyboardInterrupt is how uvicorn hands Ctrl-C on when it has shut down.
        with quiet_transformers(), contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        ended = site.close()
        listener.close()
    print("Stopped.", flush=True)
    return ended


def listening(port: int) -> socket.socket:
    """Return a socket that listens on loopback.

    Raises:
        RunError: The port is in use or may not be used.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let two servers share a port
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise RunError(
            f"Port {port} of {LOOPBACK} cannot be used: {(error.strerror or str(error)).lower()}.",
            hint="Choose another with --port, or --port 0 for any that is free.",
        ) from error
    return found
