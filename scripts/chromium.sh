#!/usr/bin/env bash
# A real browser for the end-to-end tests of reports: prints the path of its program.

. "$(dirname "$0")/lib.sh"

for name in chromium chromium-browser google-chrome; do
    if command -v "$name"; then exit 0; fi
done
apt_install chromium fonts-dejavu-core
command -v chromium
