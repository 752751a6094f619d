"""Segments: what is written survives the death of the process, and a damaged file is read as far as it can be."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from serving.experience.journal.records import FEEDBACK, FRAME, HEADER
from serving.experience.journal.segment import Segment, SegmentWriter, is_complete

PAYLOADS = [bytes((FEEDBACK,)) + bytes(range(length)) for length in (0, 1, 7, 40)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a-1.segment"
    writer = SegmentWriter(path, 4096, {"replica": "a"})
    assert all(map(writer.append, PAYLOADS))
    writer.close()
    return path


def payloads(segment: Segment) -> list[bytes]:
    return [record.payload for record in segment.records if record.kind != HEADER]


def test_a_segment_holds_its_header_and_what_was_appended(path: Path) -> None:
    segment = Segment.read(path)
    assert segment.header == {"replica": "a"}
    assert payloads(segment) == PAYLOADS
    assert segment.lost_bytes == 0
    offsets = [record.offset for record in segment.records]
    assert offsets == sorted(set(offsets))


def test_a_segment_cut_at_any_byte_loses_only_the_record_that_was_cut(path: Path) -> None:
    content = path.read_bytes()
    ends = [record.offset + FRAME.size + len(record.payload) for record in Segment.read(path).records]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        segment = Segment.read(path)
        whole = [end for end in ends if end <= cut]
        assert len(segment.records) == len(whole)
        last = whole[-1] if whole else 0
        assert segment.lost_bytes == len(content[last:cut].rstrip(b"\0"))


def test_a_damaged_record_in_the_middle_does_not_hide_those_after_it(path: Path) -> None:
    content = bytearray(path.read_bytes())
    damaged = Segment.read(path).records[2]
    for at in range(damaged.offset, damaged.offset + FRAME.size + len(damaged.payload)):
        path.write_bytes(content[:at] + bytes((content[at] ^ 0xFF,)) + content[at + 1 :])
        segment = Segment.read(path)
        assert payloads(segment) == [PAYLOADS[0], *PAYLOADS[2:]]
        assert segment.lost_bytes == FRAME.size + len(damaged.payload)


def test_a_page_that_was_never_written_is_a_gap(path: Path) -> None:
    lost = Segment.read(path).records[1]
    content = bytearray(path.read_bytes())
    content[lost.offset : lost.offset + FRAME.size + len(lost.payload)] = bytes(FRAME.size + len(lost.payload))
    path.write_bytes(content)
    segment = Segment.read(path)
    assert payloads(segment) == PAYLOADS[1:]
    assert segment.lost_bytes > 0


def test_a_full_segment_refuses_a_record_and_keeps_the_others(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "a-1.segment", 200, {})
    assert writer.append(bytes((FEEDBACK,)) * 100)
    assert not writer.append(bytes((FEEDBACK,)) * 100)
    writer.close()
    assert len(payloads(Segment.read(writer.path))) == 1


def test_an_empty_segment_leaves_no_file(tmp_path: Path) -> None:
    SegmentWriter(tmp_path / "a-1.segment", 4096, {}).close()
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_fails_at_the_start_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"File too large|No space left") as failed:
        SegmentWriter(tmp_path / "a-1.segment", 1 << 60, {})
    assert failed.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert not list(tmp_path.iterdir())


WRITE = """
import sys
from pathlib import Path
from serving.experience.journal.segment import SegmentWriter
writer = SegmentWriter(Path(sys.argv[1]), 1 << 24, {})
for number in range(1 << 30):
    if not writer.append(b"\\x04" + number.to_bytes(8, "little")):
        break
    sys.stdout.buffer.write(number.to_bytes(8, "little"))
    sys.stdout.buffer.flush()
"""


def test_what_was_appended_survives_sigkill_and_the_segment_is_then_complete(tmp_path: Path) -> None:
    path = tmp_path / "a-1.segment"
    command = [sys.executable, "-c", textwrap.dedent(WRITE), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        said = process.stdout.read(8 * 1000)
        assert not is_complete(path)
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.read()
    assert is_complete(path)
    said = said[: len(said) // 8 * 8]
    numbers = [int.from_bytes(payload[1:], "little") for payload in payloads(Segment.read(path))]
    assert numbers[: len(said) // 8] == list(range(len(said) // 8))
    assert numbers == list(range(len(numbers)))
