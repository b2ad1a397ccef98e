"""The tables of ci/bench, in the order of the arguments."""

import os
import subprocess
import sys

import charts
import check
import churn
import idle
import instructions
import memory
import throughput
import workers



def handover():
    subprocess.run([os.environ["BENCH_HANDOVER"]], check=True)


TABLES = {
    "instructions": instructions.table,
    "idle": idle.table,
    "churn": churn.table,
    "memory": memory.table,
    "throughput": throughput.table,
    "workers": workers.table,
    "handover": handover,
    "check": check.table,
    "charts": charts.draw,
}


def main():
    for name in sys.argv[1:]:
        TABLES[name]()


if __name__ == "__main__":
    sys.exit(main())
