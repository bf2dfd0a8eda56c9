"""Tables of a command whose output is a pipe."""

from rich.table import Table

from model.console import PIPED_COLUMNS, report_console


def test_piped_tables_are_whole(capsys):
    table = Table(*(f"column {index}" for index in range(12)))
    table.add_row(*("1234567",) * 12)
    report_console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert "…" not in "".join(lines)
    assert 80 < max(map(len, lines)) <= PIPED_COLUMNS
