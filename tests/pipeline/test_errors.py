"""An error keeps its fields when it crosses a process boundary, and its message is one line."""

import importlib
import pickle
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import InvalidConfig, PipelineError

FOLDER = Path(pipeline.__file__).parent


def error_classes():
    """The concrete errors of every `errors.py` and of the journey."""
    for file in [*FOLDER.rglob("errors.py"), FOLDER / "journey.py"]:
        importlib.import_module(".".join(file.relative_to(FOLDER.parent).with_suffix("").parts))
    return sorted(PipelineError.__subclasses__(), key=lambda error: error.__name__)


#: Valid values by the annotation of a field.
EXAMPLES = {
    str: "text",
    int: 3,
    float: 0.5,
    object: "anything",
    int | None: None,
}


def example(error):
    values = {}
    for name, kind in error.__annotations__.items():
        if name == "template":
            continue
        origin = getattr(kind, "__origin__", kind)
        is_plain = kind in EXAMPLES
        values[name] = EXAMPLES[kind] if is_plain else ({"a": 1} if "Mapping" in str(origin) else ["one", "two"])
    return error(**values)


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.__name__)
def test_an_error_survives_pickling_and_is_one_line(error):
    original = example(error)
    copy = pickle.loads(pickle.dumps(original))
    assert str(copy) == str(original)
    assert vars(copy) == vars(original)
    assert str(original)
    assert "\n" not in str(original)


def test_the_message_is_the_template_filled_with_the_fields():
    assert str(InvalidConfig("lr", 0.0, "more than 0")) == "lr is 0.0, expected more than 0."
