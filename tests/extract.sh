#!/bin/sh
# Prints the first C block of a Markdown file.
awk '/^```c$/ { inside = 1; next } /^```$/ { if (inside) exit } inside' "$1"
