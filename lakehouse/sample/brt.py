"""A simulated BRT feed, for the first run and for tests: no bus of it exists, and every vehicle's code begins with SIM.

    python -m lakehouse.sample.brt write FOLDER [--minutes 10]     recorded answers, one a minute until now; once
    python -m lakehouse.sample.brt serve [--port 8765]             http://127.0.0.1:<port>/gps/brt, as it is now

Like the real one, an answer lists every vehicle's last known position, so positions come again; and it has the real one's dirt:
vehicles silent for hours or months, blanks and "0" for no value, no number plate for most, coordinates 0/0, headings over 360, a
negative odometer, ignition unknown, two contents for one instant, a clock that is an hour ahead. Where a vehicle is follows from
its number and the instant alone: no random number.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

VEHICLES = 320
_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000
#: Lines as corners (longitude, latitude), roughly where the corridors are.
_LINES: dict[str, tuple[str, tuple[tuple[float, float], ...]]] = {
    "10": (
        "SANTA CRUZ X ALVORADA",
        ((-43.684, -22.916), (-43.606, -22.978), (-43.52, -23.012), (-43.44, -23.01), (-43.365, -23.0)),
    ),
    "13": ("MATO ALTO X ALVORADA", ((-43.606, -22.978), (-43.52, -23.012), (-43.44, -23.01), (-43.365, -23.0))),
    "18": ("CAMPO GRANDE X JARDIM OCEÂNICO", ((-43.556, -22.902), (-43.6, -22.97), (-43.479, -23.018), (-43.311, -23.007))),
    "22": ("JARDIM OCEÂNICO X ALVORADA", ((-43.311, -23.007), (-43.34, -23.003), (-43.365, -23.0))),
    "35": ("MADUREIRA X ALVORADA", ((-43.336, -22.877), (-43.36, -22.92), (-43.37, -22.96), (-43.365, -23.0))),
    "42": ("GALEÃO X MADUREIRA", ((-43.246, -22.815), (-43.25, -22.84), (-43.29, -22.85), (-43.336, -22.877))),
    "51": ("VILA MILITAR X RECREIO", ((-43.4, -22.86), (-43.4, -22.92), (-43.4, -22.97), (-43.479, -23.018))),
    "60": ("DEODORO X GENTILEZA", ((-43.384, -22.855), (-43.33, -22.84), (-43.25, -22.85), (-43.214, -22.898))),
}


def answer(at: int, *, vehicles: int = VEHICLES) -> bytes:
    """The feed's answer at an instant (milliseconds since 1970), with so many vehicles."""
    return json.dumps({"veiculos": [_vehicle(n, at) for n in range(vehicles)]}, ensure_ascii=False).encode()


def _vehicle(n: int, at: int) -> dict[str, Any]:
    line = list(_LINES)[n % len(_LINES)]
    name, corners = _LINES[line]
    # A vehicle reports every 20 to 44 s, and a report is 3 to 14 s old when the feed has it.
    every, late = 20_000 + 1_000 * (n * 7 % 25), 3_000 + 1_000 * (n * 5 % 12)
    reported = (at - late - n * 977) // every * every + n * 977
    if n % 9 == 4:  # silent: for an hour or two, or for days or months
        reported = at // _DAY * _DAY - (n * 13 % 97) * _DAY + n * _MINUTE if n % 2 else at // _HOUR * _HOUR - n * 9_000
    speed = 28.0 + n * 3 % 23
    way = speed * reported / _HOUR + n * 1.7
    stands = (reported // 40_000 + n) % 5 == 0 or n % 9 == 4
    longitude, latitude, heading, back = _along(corners, way)
    depot = n % 20 == 7
    if depot:
        longitude, latitude, stands = -43.4 + n / 100_000, -22.93, True
    record: dict[str, Any] = {
        "codigo": f"SIM{n:04d}",
        "placa": f"SIM{n % 10}A{n % 100:02d}" if n % 25 == 3 else "",
        "linha": "0" if depot else line,
        "latitude": round(latitude, 6),
        "longitude": round(longitude, 6),
        "dataHora": reported,
        "velocidade": 0 if stands else round(speed + reported // 1000 % 7 - 3.5, 1),
        "id_migracao_trajeto": "" if depot else f"9{int(line):02d}{int(back)}",
        "sentido": "" if depot else "volta" if back else "ida",
        "trajeto": "" if depot else f"{line} - {name} [{'VOLTA' if back else 'IDA'}]",
        "hodometro": -12.5 if n == 11 else round(20_000 + n * 311 + (way % 10_000), 1),
        "direcao": " " if stands else 361 + n if n % 100 == 9 else round(heading),
        "ignicao": None if n % 30 == 8 else int(not depot),
        "capacidadePeVeiculo": 0,
        "capacidadeSentadoVeiculo": 0,
    }
    if n == 17:
        record |= {"latitude": 0, "longitude": 0}
    if n == 29:  # its clock is ahead
        record["dataHora"] = reported + _HOUR
    if n == 22:  # silent, and each answer gives another speed for its last instant
        record["velocidade"] = at // _MINUTE % 60
    return record


def _along(corners: Sequence[tuple[float, float]], way: float) -> tuple[float, float, float, bool]:
    """Longitude, latitude, heading and whether on the way back, after so many kilometres to and fro."""
    legs = [(a, b, math.hypot((b[0] - a[0]) * 102.5, (b[1] - a[1]) * 111.2)) for a, b in pairwise(corners)]
    length = sum(km for *_, km in legs)
    rest = way % (2 * length)
    back = rest > length
    rest = 2 * length - rest if back else rest
    for (x, y), (to_x, to_y), km in legs:
        if rest <= km:
            part = rest / km
            heading = math.degrees(math.atan2((to_x - x) * 102.5, (to_y - y) * 111.2))
            return x + part * (to_x - x), y + part * (to_y - y), (heading + 180 * back) % 360, back
        rest -= km
    return *corners[-1], 0.0, back


def write(folder: Path, *, minutes: int, until: int) -> int:
    """Write recorded answers, one a minute, the last at `until`. A folder that has some stays as it is. Returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    if found := list(folder.glob("*.json")):
        return len(found)
    for back in range(minutes):
        at = until - back * _MINUTE
        (folder / f"{at}.json").write_bytes(answer(at))
    return minutes


class _Feed(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = answer(time.time_ns() // 1_000_000)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: one line a minute tells nobody anything."""


def serve(port: int) -> ThreadingHTTPServer:
    """The feed on 127.0.0.1, not yet serving. Port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), _Feed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lakehouse.sample.brt", description="A simulated BRT feed.")
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="recorded answers, one a minute until now")
    writing.add_argument("folder", type=Path)
    writing.add_argument("--minutes", type=int, default=10)
    serving = commands.add_parser("serve", help="the feed as it is now, on 127.0.0.1")
    serving.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    if arguments.command == "write":
        number = write(arguments.folder, minutes=arguments.minutes, until=time.time_ns() // 1_000_000)
        print(
            f"{number} answers of a simulated BRT feed in {arguments.folder}: its {VEHICLES} vehicles do not exist.",
            file=sys.stderr,
        )
        return 0
    with serve(arguments.port) as server:
        print(f"A simulated BRT feed on http://127.0.0.1:{server.server_address[1]}/gps/brt", file=sys.stderr, flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
