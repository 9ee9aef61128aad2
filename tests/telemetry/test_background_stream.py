"""A log whose reader stands still costs lines, never time."""

import os
import threading

from poorwill.telemetry.background_stream import BackgroundStream, written_in_background
from poorwill.telemetry.log import StreamLog


def test_a_stalled_reader_costs_no_time() -> None:
    reader, writer = os.pipe()
    stream = BackgroundStream(writer, most_bytes=100_000)
    stream.start()
    log = StreamLog(stream=stream, human=False)
    for number in range(20_000):
        log.info("a line of the log", number=number)
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(reader, 65536):
            received.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    log.info("read again")
    stream.finish()
    os.close(writer)
    thread.join()
    os.close(reader)
    text = b"".join(received).decode()
    lost = sum(int(line.split()[0]) for line in text.splitlines() if "were dropped" in line)
    assert 0 < lost < 20_001 and text.count("\n") < 20_000


def test_lines_arrive_in_order(tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "log"), "w+", encoding="utf-8") as file:
        with written_in_background(file) as stream:
            for number in range(1000):
                stream.write(f"{number}\n")
        file.seek(0)
        assert file.read().split() == [str(number) for number in range(1000)]
