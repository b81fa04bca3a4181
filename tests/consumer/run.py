#!/usr/bin/env python3
# SPDX-FileCopyrightText: dsx contributors
# SPDX-License-Identifier: Apache-2.0
"""Builds a user's project against dsx, outside the tree, and runs it.

    run.py build/release/tests/toolchain.json find_package|add_subdirectory|pkg_config g++|clang++
"""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77


def run(*command, **options):
    print("$", shlex.join(map(str, command)), flush=True)
    return subprocess.run([str(word) for word in command], check=True, text=True, **options)


def find_compiler(build, family):
    # Under the name that this build calls it by, the compiler cache knows its objects.
    if build["compiler_id"] == {"g++": "GNU", "clang++": "Clang"}[family]:
        return build["compiler"]
    names = ["clang++-19", "clang++"] if family == "clang++" else ["g++", "g++-12"]
    for name in names:
        path = shutil.which(name)
        if not path:
            continue
        banner = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        major = re.search(r"version (\d+)|\) (\d+)\.", banner)
        if family == "clang++" and (not major or int(major.group(1) or major.group(2)) < 19):
            continue
        return path
    return None


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        build = json.load(file)
    kind, family = sys.argv[2:]
    compiler = find_compiler(build, family)
    if not compiler:
        print(f"SKIPPED: no {family} here (clang is needed from version 19 on)")
        return SKIPPED
    here = os.path.join(build["source"], "tests", "consumer")
    with open(os.path.join(build["source"], "include/dsx/version.hpp"), encoding="utf-8") as file:
        version = re.search(r'define DSX_VERSION "(.*)"', file.read()).group(1)

    with tempfile.TemporaryDirectory(prefix="dsx_consumer_") as temporary:
        prefix, out = os.path.join(temporary, "prefix"), os.path.join(temporary, "out")
        program = os.path.join(out, "consumer")
        if kind != "add_subdirectory":
            run(build["cmake"], "--install", build["build"], "--prefix", prefix, stdout=subprocess.DEVNULL)
        if kind == "pkg_config":
            folder = next(top for top, _, files in os.walk(prefix) if "dsx.pc" in files)
            flags = run("pkg-config", "--cflags", "--libs", "dsx", env={**os.environ, "PKG_CONFIG_PATH": folder}, stdout=subprocess.PIPE).stdout.split()
            os.mkdir(out)
            run(compiler, "-std=c++20", os.path.join(here, "main.cpp"), "-o", program, *flags)
        else:
            options = ["-G", "Ninja", "-S", os.path.join(here, kind), "-B", out, f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_BUILD_TYPE=Release"]
            if kind == "find_package":
                options.append(f"-DCMAKE_PREFIX_PATH={prefix}")
            else:
                options += [f"-DDSX_SOURCE={build['source']}", "-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG"]
                for language in ("CXX", "CUDA") if build["launcher"] else ():
                    options.append(f"-DCMAKE_{language}_COMPILER_LAUNCHER={build['launcher']}")
                # The flags of the presets, so that the compiler cache knows the objects already, or will.
                options.append(f"-DDSX_WARNINGS_AS_ERRORS={'ON' if '-Werror' in build['own_flags'] else 'OFF'}")
                if family == "clang++":
                    options.append("-DDSX_ENABLE_CUDA=OFF")
            run(build["cmake"], *options)
            run(build["cmake"], "--build", out, "-j", os.cpu_count())
        printed = run(program, stdout=subprocess.PIPE).stdout.strip()
        print(printed)
        if printed != f'{{"dsx":"{version}"}}':
            print(f"FAILED: version {version} was expected")
            return 1
        if kind != "pkg_config" and run(os.path.join(out, "laws"), stdout=subprocess.PIPE).stdout.strip() != "kept":
            print("FAILED: the laws of schedules don't hold for GPipe, or not outside of the tree")
            return 1
        loaded = run("ldd", program, stdout=subprocess.PIPE).stdout
        runtimes = sorted(set(re.findall(r"\b(lib(?:g|i)?omp\d*)\.so", loaded)))
        print("OpenMP runtimes in the process:", ", ".join(runtimes) or "none")
        if len(runtimes) > 1:
            print("FAILED: more than one")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
