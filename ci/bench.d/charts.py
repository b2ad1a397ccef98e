"""Draws the figures of the idle and throughput tables that were kept last."""

import os
import subprocess

from output import kept, machine

STYLE = """
set terminal svg size 720,400 font "sans-serif,13" background "#ffffff"
set border 3 lc rgb "#888888"
set grid ytics lc rgb "#dddddd" lt 1
set tics nomirror
set xtics textcolor rgb "#333333"
set key top left
set rmargin 4
"""

IDLE = """
set output "docs/idle.svg"
set title "Instructions of the keepalive callbacks for each request"
set xlabel "idle connections, on as many servers"
set logscale xy
set format x "%.0f"
set format y "%.0f"
set yrange [100:1000000]
$figures << END
{figures}
END
plot $figures using 1:2 with linespoints lw 2 pt 7 lc rgb "#b33a3a" title "nginx's own keepalive", \\
     $figures using 1:3 with linespoints lw 2 pt 7 lc rgb "#2a6fb0" title "sliced"
"""

THROUGHPUT = """
set output "docs/throughput.svg"
set multiplot layout 1,2
set style fill solid
set boxwidth 0.6
set yrange [0:*]
set ylabel "requests/s"
set format y "%.0f"
unset key
$apache << END
{apache}
END
set title "Apache with mpm-itk"
plot $apache using 0:2:3:xtic(1) with boxes lc rgb variable, \\
     $apache using 0:2:(sprintf("%.0f", $2)) with labels offset 0,0.7
$fast << END
{fast}
END
set title "a fast backend"
plot $fast using 0:2:3:xtic(1) with boxes lc rgb variable, \\
     $fast using 0:2:(sprintf("%.0f", $2)) with labels offset 0,0.7
"""

COLORS = [0xAAAAAA, 0xB33A3A, 0x2A6FB0]


def boxes(names, numbers, colors):
    return "\n".join(
        f'"{name}" {number} {color}' for name, number, color in zip(names, numbers, colors)
    )


def draw():
    print(f"Drawing the figures of {machine()}")
    os.makedirs("docs", exist_ok=True)
    idle = "\n".join(" ".join(map(str, row)) for row in kept("idle"))
    gnuplot(IDLE.format(figures=idle))

    rates = [int(rate.replace(",", "")) for _, rate in kept("apache")]
    apache = boxes(["none", "built-in", "sliced"], rates, COLORS)
    medians = [median for _, median in kept("throughput")]
    colors = [COLORS[1], COLORS[2], COLORS[2]]
    fast = boxes(["built-in", "plain", "sliced"], medians, colors)
    gnuplot(THROUGHPUT.format(apache=apache, fast=fast))


def gnuplot(script):
    subprocess.run(["gnuplot"], input=STYLE + script, check=True, text=True)
