#!/usr/bin/env bash
# Installs Chromium for tests of reports, and prints the path of the program.

. "$(dirname "$0")/lib.sh"

for name in chromium chromium-browser google-chrome; do
    if command -v "$name"; then exit 0; fi
done
apt_install chromium fonts-dejavu-core
command -v chromium
