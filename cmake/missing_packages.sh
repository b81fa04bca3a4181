#!/usr/bin/env bash
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
# Prints the packages of the named groups of apt-packages.txt that are not installed, one a line.
#
#     cmake/missing_packages.sh build test
set -eu
here=$(cd "$(dirname "$0")" && pwd)
command -v dpkg-query >/dev/null || exit 0 # not a Debian: configure will say what it does not find
for group in "$@"; do
  awk -v group="[$group]" '/^\[/ { inside = ($0 == group); next } inside && NF && !/^#/ { print $1 }' "$here/apt-packages.txt"
done | while read -r package; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || echo "$package"
done
