import pytest

from pipeline.experience.online.section import BEGIN, END, MAX_CHARACTERS, with_section


@pytest.mark.parametrize("text", ["", "What a person wrote.", "A *title*\n\n- a list\n"])
def test_what_a_person_wrote_stays(text):
    changed = with_section(text, "the section")
    assert changed.startswith(text.rstrip())
    assert f"{BEGIN}\nthe section\n{END}" in changed


def test_a_later_section_takes_the_place_of_the_earlier_one():
    first = with_section("before", "one")
    edited = first + "\n\nafter"
    second = with_section(edited, r"two \1")
    assert second == edited.replace("one", r"two \1")
    assert with_section(second, r"two \1") == second


def test_a_description_that_has_no_place_is_left_alone():
    assert with_section("x" * MAX_CHARACTERS, "the section") is None
