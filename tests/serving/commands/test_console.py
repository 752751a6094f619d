import click
from click.testing import CliRunner

from serving.commands.console import one_line_errors
from serving.replica.errors import BodyTooLarge

LINE = "Error: the body is larger than 10 bytes; send fewer observations per request\n"


@click.command()
@click.argument("kind")
@one_line_errors
def command(kind: str) -> None:
    """Fail in some way."""
    if kind == "serving":
        raise BodyTooLarge(10)
    if kind == "bug":
        raise ZeroDivisionError
    click.echo("fine")


def test_a_command_that_succeeds_prints_its_own_output() -> None:
    assert CliRunner().invoke(command, ["fine"]).output == "fine\n"


def test_an_expected_error_is_printed_in_one_line_on_stderr() -> None:
    result = CliRunner().invoke(command, ["serving"])
    assert (result.exit_code, result.stderr, result.stdout) == (1, LINE, "")


def test_traceback_prints_the_traceback_before_the_error() -> None:
    result = CliRunner().invoke(command, ["serving", "--traceback"])
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith(LINE)


def test_an_unexpected_error_is_raised_unchanged() -> None:
    assert isinstance(CliRunner().invoke(command, ["bug"]).exception, ZeroDivisionError)
