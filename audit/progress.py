"""What a person sees while hosts are asked: one live line a host on a terminal, plain lines elsewhere."""

from collections.abc import Callable
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from audit.text import visible


class Progress:
    """Called as `progress(host, what)` from any thread; a context manager around the collection."""

    LINES = 40
    """More live lines than this do not fit a terminal: the rest is summed up."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = Lock()
        self._state: dict[str, tuple[float, str]] = {}
        self._began: dict[str, float] = {}
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Stop drawing and leave the terminal as it was."""
        if self._live:
            self._live.stop()

    def __call__(self, host: str, what: str) -> None:
        """`host` is now doing `what`."""
        with self._lock:
            began = self._began.setdefault(host, monotonic())
            self._state[host] = (monotonic() - began, visible(what, 200))
            if self._live:
                self._live.update(self._table())
            else:
                self._console.print(Text(f"{visible(host, 60)}: {visible(what, 200)}"), soft_wrap=True)

    def paused(self, ask: Callable[[str], str]) -> Callable[[str], str | None]:
        """`ask` for a secret with the live lines out of the way. None when nobody answers."""

        def prompt(question: str) -> str | None:
            if self._live:
                self._live.stop()
            try:
                return ask(visible(question))
            except EOFError:
                return None
            finally:
                if self._live:
                    self._live.start()

        return prompt

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for host, (seconds, what) in list(self._state.items())[-self.LINES :]:
            table.add_row(Text(visible(host, 40)), Text(what), Text(f"{seconds:.1f} s", style="dim"))
        if len(self._state) > self.LINES:
            table.add_row(Text(f"… and {len(self._state) - self.LINES} more hosts", style="dim"))
        return table
