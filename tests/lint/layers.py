#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""A header includes only lower layers, its own included; public headers include nothing third-party."""
import re
import sys

import sources

# From the ground up; the layers of one line do not see each other.
HOUSE = [
    ["core"],
    ["codec"],
    ["tensor"],
    ["place", "io"],
    ["data"],
    ["comm"],
    ["kernels", "cuda"],
    ["pass"],
    ["policy"],
    ["ops"],
    ["moe"],  # routers stand in models, as arguments of their layers
    ["nn"],
    ["models"],
    ["sharding", "offload", "pipeline", "quant", "precision", "recompute", "attention", "summation"],
    ["weights"],
    ["optim"],
    ["train"],
    ["infer"],
    ["plan"],
]
POLICIES = {"moe", *next(layers for layers in HOUSE if "sharding" in layers)}
FLOOR = {layer: height for height, layers in enumerate(HOUSE) for layer in layers}
# They know policy concepts, never a policy.
BLIND = {"weights", "train"}
# What a layer may see is what lies below it, but for these, which stand apart from the model's world.
ONLY = {"io": {"core", "codec", "tensor"}, "data": {"core", "tensor", "io"}}

STANDARD = set(
    "algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv chrono cinttypes climits cmath compare complex concepts "
    "condition_variable coroutine csetjmp csignal cstdarg cstddef cstdint cstdio cstdlib cstring ctime deque exception execution filesystem format "
    "forward_list fstream functional future initializer_list iomanip ios iosfwd istream iterator latch limits list locale map memory memory_resource "
    "mutex new numbers numeric optional ostream queue random ranges ratio regex scoped_allocator semaphore set shared_mutex source_location span "
    "sstream stack stdexcept stop_token streambuf string string_view system_error thread tuple type_traits typeindex typeinfo unordered_map "
    "unordered_set utility valarray variant vector version".split())


def main():
    root = sys.argv[1]
    headers = [name for name in sources.listed(root) if name.startswith("include/dsx/") and name.endswith((".hpp", ".cuh"))]
    findings = []
    for name in headers:
        parts = name.split("/")
        layer = parts[2] if len(parts) > 3 else None
        if layer and layer not in FLOOR:
            findings.append(f"{name}: the folder {layer} has no floor in tests/lint/layers.py")
            continue
        for line, text in sources.numbered(sources.code(sources.read(root, name), keep_strings=True)):
            found = re.match(r'\s*#\s*include\s*([<"])([^">]+)[">]', text)
            if not found:
                continue
            quote, target = found.groups()
            if quote == '"':
                findings.append(f"{name}:{line}: include dsx's headers as <dsx/...>")
            elif target.startswith("dsx/"):
                below = target.split("/")[1] if target.count("/") > 1 else None
                if layer is None or below is None:
                    if layer and target != "dsx/version.hpp":
                        findings.append(f"{name}:{line}: {layer}/ includes {target}, which includes everything")
                    continue
                allowed = below == layer or FLOOR.get(below, 99) < FLOOR[layer]
                if layer in ONLY:
                    allowed = below == layer or below in ONLY[layer]
                if not allowed:
                    findings.append(f"{name}:{line}: {layer}/ includes {target}, and {below}/ is not below it")
                elif layer in BLIND and below in POLICIES:
                    findings.append(f"{name}:{line}: {layer}/ includes a policy, {target}")
            elif target == "iostream":
                findings.append(f"{name}:{line}: <iostream> brings static initialisers into every program")
            elif target not in STANDARD and not (layer == "cuda" and target.startswith("cuda")):
                findings.append(f"{name}:{line}: <{target}> is neither dsx's nor the standard library's")
    sources.finish(findings, len(headers))


if __name__ == "__main__":
    main()
