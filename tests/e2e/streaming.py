"""A TCP stream between two pods for some seconds, every byte checked. Run inside the pods; imports nothing of ours.

    python streaming.py receive ADDRESS PORT
    python streaming.py send ADDRESS PORT SECONDS

Each prints how many bytes it saw; what breaks the connection ends it with an error.
"""

import socket
import sys
import time

PATTERN = bytes(range(256)) * 64
PATIENCE_SECONDS = 20


def receive(address: str, port: int) -> int:
    with socket.create_server((address, port)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        print("listening", flush=True)
        connection, _ = listener.accept()
    count = 0
    with connection:
        connection.settimeout(PATIENCE_SECONDS)
        while part := connection.recv(1 << 18):
            start = count % 256
            expected = (PATTERN * (len(part) // len(PATTERN) + 2))[start : start + len(part)]
            assert part == expected, f"byte {count} and on came changed"
            count += len(part)
    return count


def send(address: str, port: int, seconds: float) -> int:
    deadline, count = time.monotonic() + seconds, 0
    with socket.create_connection((address, port), PATIENCE_SECONDS) as connection:
        while time.monotonic() < deadline:
            connection.sendall(PATTERN)
            count += len(PATTERN)
            time.sleep(0.003)  # leaves some of the machine to what is tested
    return count


if __name__ == "__main__":
    role, place, number, *rest = sys.argv[1:]
    print(receive(place, int(number)) if role == "receive" else send(place, int(number), float(rest[0])))
