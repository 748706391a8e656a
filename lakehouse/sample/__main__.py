"""Command line of the sample: `python -m lakehouse.sample [TARGET] [--lines N]`.

Progress goes to stderr (a bar on a terminal, else one line per sync), the truth as JSON to stdout. Exit code 1 and one
sentence when the sample cannot be written.
"""

import argparse
import json
import sys
from pathlib import Path

from lakehouse.sample.landing import SampleError, write_sample_landing
from lakehouse.sample.pedidos import write_order_sources


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lakehouse.sample", description="Write the sample landing zone.")
    parser.add_argument("target", nargs="?", metavar="TARGET", help="a local folder (default: LAKEHOUSE_LANDING)")
    parser.add_argument(
        "--lines", type=int, metavar="N", help="sale lines to take, spread over the year (default: all 1,469,307)"
    )
    arguments = parser.parse_args()
    try:
        target = _local(arguments.target or _landing_of_settings())
        truth = write_sample_landing(target, lines=arguments.lines, progress=_show)
        write_order_sources(target)
    except SampleError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(truth.to_json(), indent=1))
    return 0


def _landing_of_settings() -> str:
    from lakehouse.settings import load_settings

    landing: str = load_settings().landing
    return landing


def _local(target: str) -> Path:
    if "://" in target and not target.startswith("file://"):
        raise SampleError(
            f"The sample is written to a local folder, not to {target}. Name a folder as TARGET and copy it from there."
        )
    return Path(target.removeprefix("file://"))


def _show(text: str, share: float) -> None:
    if not sys.stderr.isatty():
        print(text, file=sys.stderr)
        return
    done = round(share * 30)
    end = "\n" if share >= 1 else ""
    print(f"\rsample [{'#' * done}{'.' * (30 - done)}] {share:4.0%}  {text}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
