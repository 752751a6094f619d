import click
import pytest
from click.testing import CliRunner

from serving.commands.console import domain_errors
from serving.replica.errors import BodyTooLarge


class OtherError(Exception):
    pass


@click.command()
@click.argument("kind")
@domain_errors(OtherError)
def command(kind: str) -> None:
    """Fail in some way."""
    if kind == "serving":
        raise BodyTooLarge(10)
    if kind == "other":
        raise OtherError("something else")
    if kind == "bug":
        raise ZeroDivisionError
    click.echo("fine")


def test_a_command_that_succeeds_prints_its_own_output() -> None:
    assert CliRunner().invoke(command, ["fine"]).output == "fine\n"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("serving", "Error: the body is larger than 10 bytes; send fewer observations per request\n"),
        ("other", "Error: something else\n"),
    ],
)
def test_an_expected_error_is_printed_in_one_line_on_stderr(kind: str, line: str) -> None:
    result = CliRunner().invoke(command, [kind])
    assert (result.exit_code, result.stderr, result.stdout) == (1, line, "")


def test_traceback_prints_the_traceback_before_the_error() -> None:
    result = CliRunner().invoke(command, ["other", "--traceback"])
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("Error: something else\n")


def test_an_unexpected_error_is_raised_unchanged() -> None:
    assert isinstance(CliRunner().invoke(command, ["bug"]).exception, ZeroDivisionError)
