import io
import json
import logging
import logging.handlers
import re
import sys
from collections.abc import Iterator

import pytest

from serving.telemetry import logs
from serving.telemetry.logs import JsonFormatter, TextFormatter

URI = "http://u:secret@127.0.0.1:1"


def record(message: str = "m", *arguments: object, **attributes: object) -> logging.LogRecord:
    made = logging.LogRecord("serving.http", logging.ERROR, "x", 1, message, arguments, None)
    vars(made).update(attributes)
    return made


@pytest.fixture
def json_command(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command with `--log-format json`."""
    for name in ("", *logs.OTHERS):  # the handlers of other tests keep their formatters
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    logs.configure_command("json")
    yield
    logging.captureWarnings(capture=False)


def test_a_line_of_json_says_when_how_bad_where_and_of_which_request_and_version() -> None:
    context = {"application": "cartpole", "replica": "abc", "version": 3}
    formatter = JsonFormatter(lambda: context)
    line = json.loads(formatter.format(record("failed: %s", "x", request_id="7", route="/cartpole", created=0.5)))
    assert line == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "ERROR",
        "logger": "serving.http",
        "message": "failed: x",
        "application": "cartpole",
        "replica": "abc",
        "version": 3,
        "request_id": "7",
        "route": "/cartpole",
    }


def test_the_time_is_one_of_rfc_3339_in_utc() -> None:
    line = json.loads(JsonFormatter().format(record()))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_a_record_outside_of_a_request_names_none() -> None:
    assert json.loads(JsonFormatter().format(record(request_id=None))).keys() == {"time", "level", "logger", "message"}


def test_a_traceback_is_part_of_the_line_without_credentials() -> None:
    try:
        raise RuntimeError(f"cannot connect to {URI}")  # noqa: TRY301 - for its traceback
    except RuntimeError:
        failed = record("%s failed", URI, exc_info=sys.exc_info())
    text = JsonFormatter().format(failed)
    assert "\n" not in text
    assert "secret" not in text
    line = json.loads(text)
    assert line["message"] == "http://***@127.0.0.1:1 failed"
    assert line["exception"].startswith("Traceback")


def test_what_would_break_a_line_is_escaped() -> None:
    message = 'two\nlines " \x1b[2J ü \udc80'
    text = JsonFormatter().format(record(message))
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["message"] == message


def test_text_names_the_request_in_its_first_line() -> None:
    try:
        raise ZeroDivisionError  # noqa: TRY301 - for its traceback
    except ZeroDivisionError:
        failed = record("failed at %s", URI, request_id="7", exc_info=sys.exc_info())
    first, second, *_ = TextFormatter().format(failed).splitlines()
    assert (first, second) == ("failed at http://***@127.0.0.1:1 (request 7)", "Traceback (most recent call last):")
    assert TextFormatter().format(record("m")) == "m"


def test_lines_of_replicas_are_shown_with_their_process_and_without_credentials() -> None:
    assert logs.forwarded(7, f"cannot reach {URI}") == "[replica 7] cannot reach http://***@127.0.0.1:1"


@pytest.mark.usefixtures("json_command")
def test_as_json_the_lines_of_replicas_pass_and_what_else_they_print_becomes_a_record() -> None:
    line = JsonFormatter().format(record('"http://a", "b@c"'))
    assert logs.forwarded(7, line) == line
    printed = json.loads(logs.forwarded(7, f"cannot reach {URI}"))
    assert (printed["message"], printed["pid"]) == ("cannot reach http://***@127.0.0.1:1", 7)


@pytest.mark.usefixtures("json_command")
def test_a_command_logs_json_without_credentials() -> None:
    handler = logging.getLogger().handlers[0]  # pytest adds its own behind it
    assert isinstance(handler, logging.StreamHandler)
    assert isinstance(handler.formatter, JsonFormatter)
    handler.setStream(io.StringIO())
    logging.getLogger("serving.commands.run").error("no model at %s", URI)
    line = json.loads(handler.stream.getvalue())
    assert (line["level"], line["message"]) == ("ERROR", "no model at http://***@127.0.0.1:1")


def test_as_json_the_files_of_serve_have_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve buffers its records in a handler before the one that writes them."""
    file = logging.StreamHandler()
    logger = logging.getLogger("ray.serve")
    for name in logs.OTHERS:
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    monkeypatch.setattr(logger, "handlers", [logging.handlers.MemoryHandler(9, target=file)])
    monkeypatch.setattr(logging.getLogger("serving"), "handlers", [])
    logs.configure_replica("text", dict)
    assert file.formatter is None
    logs.configure_replica("json", lambda: {"version": 3})
    assert file.formatter is not None
    assert json.loads(file.formatter.format(record()))["version"] == 3
