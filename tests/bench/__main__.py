"""One table of ratios, each measured side by side in this run: `make bench`.

All that is compared is measured in turn, several times; the table gives medians. ARGS="--only loops" measures
a part, ARGS="--json FILE" stores the table.
"""

import argparse
from importlib import import_module
from pathlib import Path

from tests.bench.table import Row, show

PARTS = ("loops", "cluster", "others")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="part to measure; all by default")
    parser.add_argument("--repeats", type=int, default=5, help="how often each way is measured")
    parser.add_argument("--json", type=Path, help="file to store the table in")
    options = parser.parse_args()
    rows: list[Row] = []
    for part in options.only or PARTS:
        rows += import_module(f"tests.bench.{part}").measure(options.repeats)
    show(rows, options.json)


if __name__ == "__main__":
    main()
