#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Code in the documentation equals the programs that it quotes."""
import subprocess
import sys

sys.exit(subprocess.run([sys.executable, f"{sys.argv[1]}/scripts/quote_docs", "--check"]).returncode)
