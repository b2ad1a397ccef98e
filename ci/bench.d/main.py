"""The tables of ci/bench, in the order of the arguments."""

import sys

import charts
import check
import churn
import idle
import instructions
import memory
import throughput
import workers

TABLES = {
    "instructions": instructions.table,
    "idle": idle.table,
    "churn": churn.table,
    "memory": memory.table,
    "throughput": throughput.table,
    "workers": workers.table,
    "check": check.table,
    "charts": charts.draw,
}


def main():
    for name in sys.argv[1:]:
        TABLES[name]()


if __name__ == "__main__":
    sys.exit(main())
