"""What is drawn while hosts are asked: plain lines for logs, live ones for people, nothing of a host's making."""

import io

from rich.console import Console

from audit.progress import Progress


def test_lines_are_plain_where_nobody_watches():
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=False)) as progress:
        progress("kvm01", "connecting")
        progress("kvm02", "\x1b[31m[bold]odd[/bold]\n")
    assert out.getvalue() == "kvm01: connecting\nkvm02: �[31m[bold]odd[/bold] \n"


def test_a_terminal_gets_live_lines_that_go_away_and_pause_for_a_question():
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True, width=60)) as progress:
        for number in range(Progress.LINES + 2):
            progress(f"kvm{number:02}", "connecting")
        assert progress.paused(lambda question: question + "!")("Password of root: ") == "Password of root: !"
        assert progress.paused(lambda _: (_ for _ in ()).throw(EOFError))("Password: ") is None
    assert "2 more hosts" in out.getvalue()
    assert out.getvalue().count("\x1b[?25h") >= out.getvalue().count("\x1b[?25l")  # the cursor is shown again
